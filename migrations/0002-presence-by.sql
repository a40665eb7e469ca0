-- Which core's clock stamped a host's presence: told to people, never compared between machines.
ALTER TABLE hosts ADD COLUMN presence_by TEXT; -- JSON text; NULL: stamped by an earlier version
