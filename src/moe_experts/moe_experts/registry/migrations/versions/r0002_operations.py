"""Routes, outcomes, A/B tests, notes, API keys, step metrics; soft deletion; what people write by hand is checked."""

from alembic import op

revision = '0002'
down_revision = '0001'


def upgrade() -> None:
    """Add what the operations need."""
    op.execute("""
ALTER TABLE experts ADD COLUMN deleted_at timestamptz;
ALTER TABLE experts DROP CONSTRAINT experts_name_key;
CREATE UNIQUE INDEX idx_experts_name ON experts (name) WHERE deleted_at IS NULL;
UPDATE experts SET fallback = false WHERE fallback AND id <> (SELECT min(id) FROM experts WHERE fallback);
CREATE UNIQUE INDEX idx_experts_fallback ON experts (fallback) WHERE fallback AND deleted_at IS NULL;
DROP INDEX idx_experts_status;
CREATE INDEX idx_experts_status ON experts (status, name);
DROP INDEX idx_experts_domain;
CREATE INDEX idx_experts_domain ON experts (domain, name);
CREATE INDEX idx_experts_category ON experts (category, name);
CREATE INDEX idx_experts_updated_at ON experts (updated_at);
CREATE INDEX idx_experts_base_expert ON experts (base_expert) WHERE base_expert <> '';
ALTER TABLE experts ADD CONSTRAINT experts_status CHECK (
    status IN ('creating', 'ready', 'training', 'disabled', 'failed'));

ALTER TABLE versions ALTER COLUMN size_bytes TYPE bigint, ALTER COLUMN parameter_count TYPE bigint;
DELETE FROM aliases a WHERE NOT EXISTS (
    SELECT FROM versions v WHERE v.expert_id = a.expert_id AND v.number = a.version);
ALTER TABLE aliases ADD CONSTRAINT aliases_point_at_versions
    FOREIGN KEY (expert_id, version) REFERENCES versions (expert_id, number);

ALTER TABLE training_jobs ADD CONSTRAINT training_jobs_status CHECK (
    status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled'));
DROP INDEX idx_training_jobs_status;
CREATE INDEX idx_training_jobs_status ON training_jobs (status, id);

CREATE TABLE job_metrics (
    job_id integer NOT NULL REFERENCES training_jobs (id) ON DELETE CASCADE, step integer NOT NULL,
    epoch double precision, loss double precision, validation_loss double precision, learning_rate double precision,
    tokens_per_second double precision, stamp timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (job_id, step));

-- a text may be longer than a B-tree entry
ALTER TABLE route_samples DROP CONSTRAINT route_samples_expert_text_key;
CREATE UNIQUE INDEX idx_route_samples_text ON route_samples (expert, md5(text));
CREATE INDEX idx_route_samples_expert ON route_samples (expert, id);

CREATE TABLE routes (
    id bigserial PRIMARY KEY, request_id text NOT NULL UNIQUE, session text NOT NULL, prompt_digest text NOT NULL,
    prompt text NOT NULL, choice text NOT NULL, confidence double precision NOT NULL, ranked text[] NOT NULL,
    probabilities double precision[] NOT NULL, none_probability double precision NOT NULL, abstained boolean NOT NULL,
    stage text NOT NULL, latency_s double precision NOT NULL, router_version integer NOT NULL, corrected text NOT NULL,
    stamp timestamptz NOT NULL DEFAULT now());
CREATE INDEX idx_routes_choice ON routes (choice, id);
CREATE INDEX idx_routes_corrected ON routes (id) WHERE corrected <> '';

CREATE TABLE router_versions (
    number integer PRIMARY KEY, artifact_path text NOT NULL, sha256 text NOT NULL, samples integer NOT NULL,
    threshold double precision NOT NULL, metrics json NOT NULL, active boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now());
CREATE UNIQUE INDEX idx_router_versions_active ON router_versions (active) WHERE active;

CREATE TABLE outcomes (
    request_id text PRIMARY KEY, session text NOT NULL, expert text NOT NULL, version integer NOT NULL,
    ab_test_id integer NOT NULL, success boolean NOT NULL, error_code integer NOT NULL, finish_reason text NOT NULL,
    latency_s double precision NOT NULL, first_token_s double precision, completion_tokens integer NOT NULL,
    stamp timestamptz NOT NULL DEFAULT now(), score double precision, comment text NOT NULL DEFAULT '');
CREATE INDEX idx_outcomes_expert ON outcomes (expert, stamp);

CREATE TABLE ab_tests (
    id serial PRIMARY KEY, control varchar(63) NOT NULL, treatment varchar(63) NOT NULL,
    share double precision NOT NULL CHECK (share > 0 AND share < 1), status varchar(16) NOT NULL CHECK (
    status IN ('running', 'promoted', 'rolled_back', 'stopped')), auto_decide boolean NOT NULL, verdict text NOT NULL,
    evidence double precision NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz);
CREATE UNIQUE INDEX idx_ab_tests_control ON ab_tests (control) WHERE status = 'running';
CREATE UNIQUE INDEX idx_ab_tests_treatment ON ab_tests (treatment) WHERE status = 'running';

CREATE TABLE ab_units (
    ab_test_id integer NOT NULL REFERENCES ab_tests (id) ON DELETE CASCADE, unit text NOT NULL,
    treated boolean NOT NULL, assigned_at timestamptz NOT NULL DEFAULT now(), success boolean,
    latency_s double precision, liked boolean, PRIMARY KEY (ab_test_id, unit));
CREATE INDEX idx_ab_units_open ON ab_units (ab_test_id, assigned_at) WHERE success IS NULL;

CREATE TABLE notes (
    id bigserial PRIMARY KEY, expert_id integer NOT NULL REFERENCES experts (id), source text NOT NULL,
    text text NOT NULL, digest varchar(64) NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (expert_id, digest));
CREATE INDEX idx_notes_expert ON notes (expert_id, id);

CREATE TABLE api_keys (
    id serial PRIMARY KEY, name varchar(63) NOT NULL, scopes text NOT NULL, salt varchar(64) NOT NULL,
    digest varchar(64) NOT NULL, actor text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz);
""")
