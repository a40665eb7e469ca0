-- The directory, one table a kind, one row a record. Columns are named as the fields are, with
-- their units; JSON where a field is itself a list or a map (json_each() reads it).
--
-- No foreign keys: a member may be told before its host, and goes on standing when its host is
-- removed; what belongs together is the registry's to say, not the store's.

CREATE TABLE services (
  name TEXT NOT NULL PRIMARY KEY,
  policy TEXT NOT NULL,
  ttl_sec INTEGER NOT NULL,
  min_addrs INTEGER NOT NULL,
  max_addrs INTEGER NOT NULL,
  tie_ms REAL NOT NULL,
  sticky_ms REAL NOT NULL,
  sticky_ratio REAL NOT NULL,
  "where" TEXT NOT NULL, -- JSON: attribute -> value
  aliases TEXT NOT NULL, -- JSON: names
  url_hosts TEXT NOT NULL, -- JSON: host names
  "join" TEXT NOT NULL,
  max_per_prefix INTEGER NOT NULL,
  verify TEXT NOT NULL,
  all_down TEXT NOT NULL -- JSON: mode, and for fallback its addresses and URL
) STRICT, WITHOUT ROWID;

CREATE TABLE hosts (
  name TEXT NOT NULL PRIMARY KEY,
  agent INTEGER NOT NULL, -- 0 or 1
  addresses TEXT NOT NULL, -- JSON: addresses, best first
  proofs TEXT NOT NULL, -- JSON: address -> proof
  echo TEXT, -- JSON: address and port
  echo_key TEXT NOT NULL,
  public_address TEXT,
  public_port INTEGER,
  reachable INTEGER, -- 0, 1 or not known
  home TEXT NOT NULL,
  lease_sec REAL NOT NULL,
  presence TEXT NOT NULL,
  presence_since_ms REAL NOT NULL, -- epoch
  coordinate TEXT, -- JSON: vec, heightMs, adjustmentMs, error
  mesh_ms TEXT, -- JSON: host name -> RTT; NULL: none measured yet
  place TEXT, -- JSON: lat, lon, accuracyKm
  credential_hash TEXT,
  token_id TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
  service TEXT NOT NULL,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  addresses TEXT NOT NULL, -- JSON: addresses; empty: the host's
  port INTEGER,
  url TEXT,
  attributes TEXT NOT NULL, -- JSON: attribute -> value
  weight REAL NOT NULL,
  capacity REAL NOT NULL,
  load REAL,
  health TEXT NOT NULL,
  drained INTEGER NOT NULL, -- 0 or 1
  "left" INTEGER NOT NULL, -- 0 or 1
  "check" TEXT,
  PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
  id TEXT NOT NULL PRIMARY KEY,
  hash TEXT NOT NULL, -- SHA-256 of the secret, which is kept nowhere
  scope TEXT NOT NULL, -- JSON: admin, or the services whose members it may register
  created_ms REAL NOT NULL, -- epoch
  note TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE localities (
  prefix TEXT NOT NULL PRIMARY KEY,
  evidence TEXT NOT NULL, -- JSON: host, rttMs, count, atMs, kind each
  incumbents TEXT NOT NULL -- JSON: service -> member
) STRICT, WITHOUT ROWID;

-- Imported places: one row for each region of the address space.
CREATE TABLE places (
  region TEXT NOT NULL PRIMARY KEY, -- prefix
  packed BLOB NOT NULL -- resolver/place-page.ts
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
