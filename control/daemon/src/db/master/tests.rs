//! Master keys, from where they come and to what they open.
