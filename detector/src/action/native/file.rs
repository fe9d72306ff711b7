//! stub
use super::{Task, Undelivered};
pub(super) fn deliver(_: &std::path::Path, _: &[&Task], _: &str) -> Result<(), Undelivered> {
    Ok(())
}
