//! Resources of the REST API, as they are on the wire.
