//! `detach`: nothing is enforced any longer. Needs neither a daemon nor a readable configuration.
use std::process::ExitCode;

use super::{Place, ask};
use crate::{
    control::{client::CallError, wire},
    enforce,
};

pub(super) fn run(place: &Place) -> anyhow::Result<ExitCode> {
    // A living daemon would put back what is taken from under it: it has to end first.
    match ask::post::<wire::Stopping>(place, "/v1/detach", &()) {
        Ok(done) => {
            ask::print(place, &done, |_| {
                "detached: program, links and maps are gone; the daemon has stopped".into()
            });
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => match error.downcast_ref::<CallError>() {
            Some(CallError::NoSocket(_) | CallError::NobodyThere(_)) => {}
            _ => return Err(error),
        },
    }
    let detached = enforce::detach(&place.pin)?;
    let json = serde_json::json!({ "enforced": 0, "detached": true });
    let answer = ask::Answer { json, read: detached };
    ask::print(place, &answer, |detached| detached.to_string());
    Ok(ExitCode::SUCCESS)
}
