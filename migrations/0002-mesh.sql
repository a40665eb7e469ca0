-- What a host measured of the ways to the other hosts.
ALTER TABLE hosts ADD COLUMN mesh_ms TEXT; -- JSON: host name -> RTT; NULL: none measured yet
