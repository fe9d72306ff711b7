//! The whole reader: small trees in, settings and problems out.
