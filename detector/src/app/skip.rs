//! Jails that do not run while none of their logs exists (`skip_if_nologs`).
use crate::config::{JailSettings, Loaded, LogPath, Problem, Severity, SourceSettings};

/// Takes such jails out of the configuration, and tells of them.
pub(super) fn without_logs(mut loaded: Loaded) -> Loaded {
    let skips = &loaded.settings.skip_without_logs;
    let missing = |jail: &mut JailSettings| match &jail.source {
        SourceSettings::Files { paths, .. } => {
            skips.contains(&jail.name) && !paths.iter().any(exists)
        }
        _ => false,
    };
    for jail in loaded.settings.jails.extract_if(.., missing) {
        let problem = Problem {
            severity: Severity::Warning,
            place: jail.place,
            what: "none of its logs exists: the jail does not run (`skip_if_nologs`)".to_owned(),
            remedy:
                "reload when there is one, or set `skip_if_nologs = false`: the jail waits then"
                    .to_owned(),
            jail: Some(jail.name),
        };
        tracing::warn!("{problem}");
        loaded.problems.push(problem);
    }
    loaded
}

fn exists(path: &LogPath) -> bool {
    glob::glob(&path.pattern).into_iter().flatten().flatten().next().is_some()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{config, config_tree::DirTree};

    fn jails(root: &Path) -> (Vec<String>, usize) {
        let loaded = config::load(&DirTree::new(root)).expect("a configuration");
        let loaded = without_logs(loaded);
        let names = loaded.settings.jails.iter().map(|jail| jail.name.to_string());
        (names.collect(), loaded.problems.iter().filter(|it| it.what.contains("skip_if")).count())
    }

    #[test]
    fn a_jail_without_logs_runs_unless_it_is_to_be_skipped() {
        let folder = tempfile::tempdir().expect("a directory");
        let log = folder.path().join("a.log");
        let jail = |name: &str, more: &str| {
            format!("[{name}]\nenabled = true\nfilter = f\nlogpath = {}\n{more}", log.display())
        };
        let jails_of = [
            jail("waits", ""),
            jail("skipped", "skip_if_nologs = true\n"),
            jail("kept", "skip_if_nologs = no\n"),
            jail("journal", "skip_if_nologs = true\njournalmatch = _COMM=x\n"),
        ];
        fs::create_dir(folder.path().join("filter.d")).expect("a directory");
        let filter = "[Definition]\nfailregex = ^f <ADDR>$\n";
        fs::write(folder.path().join("filter.d/f.conf"), filter).expect("a file");
        fs::write(folder.path().join("jail.conf"), jails_of.concat()).expect("a file");
        assert_eq!(
            jails(folder.path()),
            (["waits", "kept", "journal"].map(str::to_owned).into(), 1)
        );
        fs::write(log, "").expect("a file");
        let all = ["waits", "skipped", "kept", "journal"].map(str::to_owned);
        assert_eq!(jails(folder.path()), (all.into(), 0));
    }
}
