//! The configuration file: reading, value types, errors with their place.
