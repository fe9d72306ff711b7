//! fail2ban's configuration dialect: text in, checked settings and a list of problems out.
mod scope;
mod settings;
pub use scope::{PortRange, Scope, ScopeError, Traffic};
pub use settings::*;
