//! stub
use super::{Task, Undelivered};
use crate::config::Webhook;
pub(super) fn deliver(_: &Webhook, _: &[&Task], _: &str) -> Result<(), Undelivered> {
    Ok(())
}
