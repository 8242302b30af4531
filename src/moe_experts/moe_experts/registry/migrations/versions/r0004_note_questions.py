"""Questions by which a note is found."""

from alembic import op

revision = '0004'
down_revision = '0003'


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE notes ADD COLUMN questions text[] NOT NULL DEFAULT '{}'")
