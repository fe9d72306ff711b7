//! The rooms of enforcement.
