//! What the daemon says of itself, as far as the demo shows it.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::stage::Stage;

/// The daemon at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    /// Packets dropped since its program was loaded.
    pub dropped: u64,
    /// Who is banned.
    pub bans: Vec<Ban>,
}

/// One ban.
#[derive(Debug, PartialEq, Eq)]
pub struct Ban {
    /// Whom it hits.
    pub prefix: String,
    /// How many failures led to it.
    pub failures: u64,
}

impl View {
    /// Asks the daemon.
    pub fn of(stage: &Stage) -> Result<Self> {
        Self::read(&stage.ask("status")?, &stage.ask("bans")?)
    }

    fn read(status: &Value, bans: &Value) -> Result<Self> {
        let number = |value: &Value, place: &str| {
            let number = value.pointer(place).and_then(Value::as_u64);
            number.with_context(|| format!("no number at `{place}` of {value}"))
        };
        let bans = bans.as_array().with_context(|| format!("no list of bans: {bans}"))?;
        Ok(Self {
            dropped: number(status, "/enforcement/counters/dropped/packets")?,
            bans: bans
                .iter()
                .map(|ban| {
                    let prefix = ban.pointer("/prefix").and_then(Value::as_str);
                    Ok(Ban {
                        prefix: prefix.context("a ban without `prefix`")?.to_owned(),
                        failures: number(ban, "/failures")?,
                    })
                })
                .collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_daemons_answers_are_read() {
        let status = json!({
            "enforcement": {"counters": {"dropped": {"packets": 12, "bytes": 700}}},
        });
        let bans = json!([{"prefix": "192.0.2.66", "failures": 3, "until": 1}]);
        let ban = Ban { prefix: "192.0.2.66".to_owned(), failures: 3 };
        let view = View { dropped: 12, bans: vec![ban] };
        assert_eq!(View::read(&status, &bans).unwrap(), view);
        assert!(View::read(&status, &json!({})).is_err());
        let error = View::read(&json!({}), &bans).unwrap_err().to_string();
        assert!(error.contains("/enforcement/counters"), "{error}");
    }
}
