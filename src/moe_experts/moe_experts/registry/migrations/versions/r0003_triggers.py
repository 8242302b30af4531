"""Every change is logged and told by triggers, whoever makes it; counts are kept instead of counted.

Transitions are written by deferred triggers, at the very end of a transaction: the lock that keeps the sequence
without gaps is held for an instant only, and no transaction waits for a row while it holds it.
"""

from alembic import op

revision = '0003'
down_revision = '0002'


def upgrade() -> None:
    """Make functions, triggers and tallies."""
    op.execute(_LOG)
    op.execute(_ROWS)
    op.execute(_STATEMENTS)
    op.execute(_TALLIES)


_LOG = """
ALTER TABLE events ALTER COLUMN sequence DROP DEFAULT, ALTER COLUMN sequence TYPE bigint;
DROP SEQUENCE events_sequence_seq;

-- actor and reason come from the settings moe.actor and moe.reason of the transaction
CREATE FUNCTION moe_log(_kind text, _expert_id integer, _expert text, _version integer, _alias text, _job_id integer,
                        _detail text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE number bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1702260340);
    INSERT INTO events (sequence, stamp, kind, expert_id, expert, version, alias, job_id, actor, reason)
    SELECT coalesce(max(sequence), 0) + 1, clock_timestamp(), _kind, _expert_id, _expert, _version, _alias, _job_id,
           coalesce(nullif(current_setting('moe.actor', true), ''), 'sql:' || session_user),
           coalesce(nullif(current_setting('moe.reason', true), ''), _detail)
    FROM events RETURNING sequence INTO number;
    PERFORM pg_notify('moe_events', number::text);
END $$;

CREATE FUNCTION moe_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME;
END $$;
CREATE TRIGGER events_are_kept BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION moe_refuse();
CREATE TRIGGER versions_are_kept BEFORE UPDATE ON versions FOR EACH ROW EXECUTE FUNCTION moe_refuse();
"""

_ROWS = """
CREATE FUNCTION moe_expert_touched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.row_version := OLD.row_version + 1;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER experts_touched BEFORE UPDATE ON experts FOR EACH ROW EXECUTE FUNCTION moe_expert_touched();

CREATE FUNCTION moe_expert_logged() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE changed text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM moe_log('expert_created', NEW.id, NEW.name, 0, '', 0, '');
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM moe_log('expert_deleted', OLD.id, OLD.name, 0, '', 0, 'removed');
    ELSIF OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN
        PERFORM moe_log('expert_deleted', NEW.id, NEW.name, 0, '', 0, '');
    ELSE
        SELECT string_agg(CASE WHEN n.key = 'status' THEN 'status ' || NEW.status ELSE n.key END, ', ' ORDER BY n.key)
        INTO changed FROM jsonb_each(to_jsonb(NEW)) n JOIN jsonb_each(to_jsonb(OLD)) o USING (key)
        WHERE n.value <> o.value AND key NOT IN ('row_version', 'updated_at');
        IF changed IS NOT NULL THEN
            PERFORM moe_log('expert_updated', NEW.id, NEW.name, 0, '', 0, changed);
        END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER experts_logged AFTER INSERT OR UPDATE OR DELETE ON experts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moe_expert_logged();

CREATE FUNCTION moe_version_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM moe_log('version_registered', NEW.expert_id, (SELECT name FROM experts WHERE id = NEW.expert_id),
                    NEW.number, '', NEW.job_id, '');
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER versions_logged AFTER INSERT ON versions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moe_version_logged();

CREATE FUNCTION moe_alias_logged() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE owner text;
BEGIN
    IF TG_OP = 'DELETE' THEN
        SELECT name INTO owner FROM experts WHERE id = OLD.expert_id;
        IF owner IS NOT NULL THEN
            PERFORM moe_log('alias_set', OLD.expert_id, owner, 0, OLD.name, 0, 'removed');
        END IF;
    ELSIF TG_OP = 'INSERT' OR NEW.version <> OLD.version THEN
        SELECT name INTO owner FROM experts WHERE id = NEW.expert_id;
        PERFORM moe_log('alias_set', NEW.expert_id, owner, NEW.version, NEW.name, 0, '');
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER aliases_logged AFTER INSERT OR UPDATE OR DELETE ON aliases
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moe_alias_logged();

CREATE FUNCTION moe_job_stamped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.status = 'running' THEN
        NEW.started_at := coalesce(NEW.started_at, clock_timestamp());
    ELSIF NEW.status <> 'queued' THEN
        NEW.finished_at := coalesce(NEW.finished_at, clock_timestamp());
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER training_jobs_stamped BEFORE UPDATE OF status ON training_jobs
    FOR EACH ROW EXECUTE FUNCTION moe_job_stamped();

CREATE FUNCTION moe_job_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM moe_log('job_changed', OLD.expert_id, coalesce((SELECT name FROM experts WHERE id = OLD.expert_id), ''),
                        0, '', OLD.id, 'removed');
    ELSIF TG_OP = 'INSERT' OR NEW.status <> OLD.status THEN
        PERFORM moe_log('job_changed', NEW.expert_id, (SELECT name FROM experts WHERE id = NEW.expert_id),
                        0, '', NEW.id, NEW.status);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER training_jobs_logged AFTER INSERT OR UPDATE OR DELETE ON training_jobs
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moe_job_logged();

CREATE FUNCTION moe_ab_test_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR (NEW.status, NEW.share) IS DISTINCT FROM (OLD.status, OLD.share) THEN
        PERFORM moe_log('ab_test_changed', coalesce((SELECT id FROM experts WHERE name = NEW.control
                        AND deleted_at IS NULL), 0), NEW.control, 0, '', 0, NEW.status);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ab_tests_logged AFTER INSERT OR UPDATE ON ab_tests
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moe_ab_test_logged();

CREATE FUNCTION moe_router_version_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.active AND (TG_OP = 'INSERT' OR NOT OLD.active) THEN
        PERFORM moe_log('routes_changed', 0, '', 0, '', 0, 'router version ' || NEW.number);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER router_versions_logged AFTER INSERT OR UPDATE ON router_versions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION moe_router_version_logged();
"""

_STATEMENTS = """
CREATE FUNCTION moe_notes_logged() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE one record;
BEGIN
    FOR one IN SELECT e.id, e.name, count(*) AS n FROM changed c JOIN experts e ON e.id = c.expert_id GROUP BY e.id
               ORDER BY e.id LOOP
        PERFORM moe_log('expert_updated', one.id, one.name, 0, '', 0, 'notes: ' || one.n || ' '
                        || CASE TG_OP WHEN 'INSERT' THEN 'added' WHEN 'DELETE' THEN 'removed' ELSE 'changed' END);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER notes_added AFTER INSERT ON notes REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_notes_logged();
CREATE TRIGGER notes_changed AFTER UPDATE ON notes REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_notes_logged();
CREATE TRIGGER notes_removed AFTER DELETE ON notes REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_notes_logged();

CREATE TABLE sample_tallies (expert varchar(63) PRIMARY KEY, n bigint NOT NULL, hashes numeric NOT NULL);

CREATE FUNCTION moe_sample_hash(_expert text, _intent text, _text text) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended(_expert || E'\\x1f' || _intent || E'\\x1f' || _text, 6384501)::numeric
$$;

CREATE FUNCTION moe_samples_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE n bigint := 0;
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO sample_tallies AS t
        SELECT expert, count(*), sum(moe_sample_hash(expert, intent, text)) FROM added GROUP BY expert ORDER BY expert
        ON CONFLICT (expert) DO UPDATE SET n = t.n + excluded.n, hashes = t.hashes + excluded.hashes;
        SELECT count(*) INTO n FROM added;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO sample_tallies AS t
        SELECT expert, -count(*), -sum(moe_sample_hash(expert, intent, text)) FROM removed GROUP BY expert
        ORDER BY expert
        ON CONFLICT (expert) DO UPDATE SET n = t.n + excluded.n, hashes = t.hashes + excluded.hashes;
        SELECT count(*) INTO n FROM removed;
    END IF;
    IF n > 0 THEN
        PERFORM moe_log('routes_changed', 0, '', 0, '', 0, n || ' samples '
                        || CASE TG_OP WHEN 'INSERT' THEN 'added' WHEN 'DELETE' THEN 'removed' ELSE 'changed' END);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER samples_added AFTER INSERT ON route_samples REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION moe_samples_changed();
CREATE TRIGGER samples_changed AFTER UPDATE ON route_samples REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_samples_changed();
CREATE TRIGGER samples_removed AFTER DELETE ON route_samples REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_samples_changed();
INSERT INTO sample_tallies SELECT expert, count(*), sum(moe_sample_hash(expert, intent, text)) FROM route_samples
    GROUP BY expert;
"""

_TALLIES = """
CREATE TABLE expert_tallies (
    domain varchar(63) NOT NULL, category varchar(63) NOT NULL, status varchar(16) NOT NULL, n bigint NOT NULL,
    PRIMARY KEY (domain, category, status));

CREATE FUNCTION moe_experts_tallied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO expert_tallies AS t
        SELECT domain, category, status, count(*) FROM added WHERE deleted_at IS NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ON CONFLICT (domain, category, status) DO UPDATE SET n = t.n + excluded.n;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO expert_tallies AS t
        SELECT domain, category, status, -count(*) FROM removed WHERE deleted_at IS NULL GROUP BY 1, 2, 3
        ORDER BY 1, 2, 3
        ON CONFLICT (domain, category, status) DO UPDATE SET n = t.n + excluded.n;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER experts_added AFTER INSERT ON experts REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION moe_experts_tallied();
CREATE TRIGGER experts_changed AFTER UPDATE ON experts REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_experts_tallied();
CREATE TRIGGER experts_removed AFTER DELETE ON experts REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_experts_tallied();
INSERT INTO expert_tallies SELECT domain, category, status, count(*) FROM experts WHERE deleted_at IS NULL
    GROUP BY 1, 2, 3;

CREATE TABLE route_tallies (choice text NOT NULL, corrected boolean NOT NULL, n bigint NOT NULL,
                            PRIMARY KEY (choice, corrected));

CREATE FUNCTION moe_routes_tallied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO route_tallies AS t
        SELECT choice, corrected <> '', count(*) FROM added GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (choice, corrected) DO UPDATE SET n = t.n + excluded.n;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO route_tallies AS t
        SELECT choice, corrected <> '', -count(*) FROM removed GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (choice, corrected) DO UPDATE SET n = t.n + excluded.n;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER routes_added AFTER INSERT ON routes REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION moe_routes_tallied();
CREATE TRIGGER routes_changed AFTER UPDATE ON routes REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_routes_tallied();
CREATE TRIGGER routes_removed AFTER DELETE ON routes REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION moe_routes_tallied();
"""
