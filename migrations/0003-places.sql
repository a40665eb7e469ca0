-- Imported places: one row for each region of the address space. A locality keeps what was measured alone.
CREATE TABLE places (
  region TEXT NOT NULL PRIMARY KEY, -- prefix
  packed BLOB NOT NULL -- resolver/place-page.ts
) STRICT, WITHOUT ROWID;

-- What was imported before can't be packed by SQL: it is imported again.
DELETE FROM localities WHERE evidence = '[]';
ALTER TABLE localities DROP COLUMN place;
ALTER TABLE localities DROP COLUMN source;
