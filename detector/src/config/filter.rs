//! A jail's filter: the files, the jail's parameters, and the jail's own options that replace the filter's.
use std::collections::BTreeMap;

use super::{
    Tree,
    definition::{Definition, Kind},
    expand::{ExpandError, Lookup},
    layers::{Fault, Layers},
    params::Call,
    text::Text,
};

/// A filter's files with the parameters of one jail.
pub(super) struct FilterFiles {
    pub(super) name: String,
    layers: Layers,
    params: BTreeMap<String, Text>,
}

/// A filter that keeps its jail from running.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("there is no filter `{name}`")]
    Missing { name: String },
    #[error("filter `{name}`: {}", fault.kind)]
    Fault { name: String, fault: Fault },
    #[error("filter `{name}` has no section `[Definition]`")]
    NoDefinition { name: String },
}

impl FilterError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> String {
        match self {
            FilterError::Missing { name } => {
                format!("write `filter.d/{name}.conf`, or correct `filter`")
            }
            FilterError::Fault { fault, .. } => fault.kind.remedy().to_owned(),
            FilterError::NoDefinition { .. } => "write the section's name exactly so".to_owned(),
        }
    }
}

impl FilterFiles {
    /// Reads the files that `call` names. `logtype` tells the filter what its lines look like.
    pub(super) fn read(
        tree: &dyn Tree,
        call: Call,
        logtype: &str,
    ) -> Result<FilterFiles, FilterError> {
        let Call { name, mut params } = call;
        let base = if name.starts_with("./") { name.clone() } else { format!("filter.d/{name}") };
        let mut layers = Layers::read(tree, &base);
        if !layers.faults.is_empty() {
            return Err(FilterError::Fault { name, fault: layers.faults.swap_remove(0) });
        }
        if !layers.found() {
            return Err(FilterError::Missing { name });
        }
        if layers.section("Definition").is_none() {
            return Err(FilterError::NoDefinition { name });
        }
        let own =
            Definition { layers: &layers, params: &params, kind: Kind::Filter }.defines("logtype");
        if !own {
            params.entry("logtype".to_owned()).or_insert_with(|| Text::new(logtype, None));
        }
        Ok(FilterFiles { name, layers, params })
    }

    fn definition(&self) -> Definition<'_> {
        Definition { layers: &self.layers, params: &self.params, kind: Kind::Filter }
    }

    /// An option of the filter, final.
    pub(super) fn get(&self, option: &str) -> Lookup {
        self.definition().get(option)
    }

    /// The option as the jail uses it: the jail's own replaces the filter's, with two exceptions that fail2ban
    /// makes when the filter's comes from `[Init]` or a parameter.
    pub(super) fn overridden(
        &self,
        option: &str,
        jail: Option<Text>,
    ) -> Result<Option<Text>, ExpandError> {
        let Some(jail) = jail else { return self.get(option) };
        if self.definition().is_parameter(option) {
            match option {
                "journalmatch" => {
                    let mut both = self.get(option)?.unwrap_or_default();
                    if !both.as_str().is_empty() && !jail.as_str().is_empty() {
                        both.push_empty_line();
                    }
                    both.push(&jail, 0..jail.len(), 0);
                    return Ok(Some(both));
                }
                "maxlines" => return self.get(option),
                _ => {}
            }
        }
        Ok(Some(jail))
    }
}
