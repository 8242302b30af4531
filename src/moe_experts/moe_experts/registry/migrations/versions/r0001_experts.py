"""Experts, versions, aliases, the log, training jobs and route samples."""

from alembic import op

revision = '0001'
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.execute("""
CREATE TABLE experts (
    id serial PRIMARY KEY, name varchar(63) NOT NULL UNIQUE, status varchar(16) NOT NULL, domain varchar(63) NOT NULL,
    category varchar(63) NOT NULL, description text NOT NULL, fallback boolean NOT NULL, routable boolean NOT NULL,
    base_expert varchar(63) NOT NULL, system_prompt text NOT NULL, output_schema text NOT NULL, sampling json NOT NULL,
    max_tokens integer NOT NULL, max_seq_len integer NOT NULL, priority integer NOT NULL, row_version integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE INDEX idx_experts_status ON experts (status);
CREATE INDEX idx_experts_domain ON experts (domain);

CREATE TABLE versions (
    id serial PRIMARY KEY, expert_id integer NOT NULL REFERENCES experts (id), number integer NOT NULL,
    kind varchar(16) NOT NULL, backend varchar(16) NOT NULL, artifact_path text NOT NULL, sha256 varchar(64) NOT NULL,
    size_bytes integer NOT NULL, quantization text NOT NULL, base text NOT NULL, base_path text NOT NULL,
    base_sha256 varchar(64) NOT NULL, parameter_count integer NOT NULL, lora_scale double precision NOT NULL,
    metrics json NOT NULL, parent_version integer NOT NULL, dataset_digest varchar(64) NOT NULL,
    job_id integer NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), UNIQUE (expert_id, number));

CREATE TABLE aliases (
    expert_id integer NOT NULL REFERENCES experts (id), name varchar(63) NOT NULL, version integer NOT NULL,
    previous_version integer NOT NULL, PRIMARY KEY (expert_id, name));

CREATE TABLE events (
    sequence serial PRIMARY KEY, stamp timestamptz NOT NULL DEFAULT now(), kind varchar(32) NOT NULL,
    expert_id integer NOT NULL, expert varchar(63) NOT NULL, version integer NOT NULL, alias varchar(63) NOT NULL,
    job_id integer NOT NULL, actor text NOT NULL, reason text NOT NULL);
CREATE INDEX idx_events_expert ON events (expert, sequence);

CREATE TABLE training_jobs (
    id serial PRIMARY KEY, expert_id integer NOT NULL REFERENCES experts (id), status varchar(16) NOT NULL,
    detail json NOT NULL, created_at timestamptz NOT NULL DEFAULT now(), started_at timestamptz,
    finished_at timestamptz, heartbeat_at timestamptz);
CREATE INDEX idx_training_jobs_expert ON training_jobs (expert_id, id);
CREATE INDEX idx_training_jobs_status ON training_jobs (status);

CREATE TABLE route_samples (
    id serial PRIMARY KEY, expert varchar(63) NOT NULL, intent text NOT NULL, text text NOT NULL,
    source varchar(32) NOT NULL, UNIQUE (expert, text));
""")
