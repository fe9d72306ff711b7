//! `import`: what an installed fail2ban knows becomes ours: configuration, bans and their history.
//!
//! It only reads what is fail2ban's, and may run beside it; what it took over stands in our store and holds from the
//! next start on.
mod database;
mod firewall;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use ipnet::IpNet;
use serde_json::json;

use self::{database::Banned, firewall::Held};
use super::{Place, dump, run};
use crate::{
    clock,
    config::{self, JailName, JailSettings, Loaded, Problem, Scope, Severity, Value},
    engine::{Ban, Origin, Timestamp, Until, ban_end},
    store::{self, Store, Write},
};

const FAIL2BAN: &str = "/etc/fail2ban";
/// How long the store may take for one handful, and for the last.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bans handed to the store at once.
const HANDFUL: usize = 10_000;

#[derive(Args, Debug)]
pub(super) struct ImportArgs {
    /// fail2ban's database [default: `dbfile` of its configuration]
    #[arg(long, value_name = "PATH")]
    dbfile: Option<PathBuf>,
    /// Do not look at the rules and sets of iptables, ipset and nftables
    #[arg(long)]
    no_firewall: bool,
    /// Say what would be taken over and take over nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(place: &Place, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let dir = place.config.clone().unwrap_or_else(|| FAIL2BAN.into());
    if !dir.is_dir() {
        bail!("there is no fail2ban in `{}`: name its configuration with --config", dir.display());
    }
    let tree = run::tree(Some(&dir))?.tree;
    let loaded = config::load(tree.as_ref()).map_err(|problems| {
        let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
        anyhow::anyhow!("nothing of `{}` can be used: {}", dir.display(), told.join("; "))
    })?;
    // What concerns every jail was told above.
    let (commands, _) = config::stream(tree.as_ref(), &dump::existing).unwrap_or_default();
    let now = clock::now();
    let mut taken = Taken::new(&loaded.settings.jails, now);
    let dbfile = args.dbfile.clone().or_else(|| configured_dbfile(&commands));
    match &dbfile {
        Some(file) if args.dbfile.is_some() || file.exists() => {
            taken.database(database::read(file)?)
        }
        Some(file) => taken.notes.push(format!("there is no database `{}`", file.display())),
        None => taken.notes.push("fail2ban keeps no database".to_owned()),
    }
    if !args.no_firewall {
        let (held, faults) = firewall::held();
        taken.notes.extend(faults);
        taken.firewall(held);
    }
    if !args.dry_run {
        store(&place.state, &loaded, &taken)?;
    }
    let jails = jails(&loaded, &commands);
    if place.json {
        println!("{}", in_json(&jails, &taken, args.dry_run));
    } else {
        print!("{}", in_words(&dir, dbfile.as_deref(), &jails, &taken, args.dry_run));
    }
    Ok(ExitCode::SUCCESS)
}

/// `["set", "dbfile", PATH]`, unless it is `None` or in memory.
fn configured_dbfile(commands: &[config::Command]) -> Option<PathBuf> {
    let file = commands.iter().find_map(|command| match &command[..] {
        [Value::Text(set), Value::Text(what), Value::Text(file)]
            if set == "set" && what == "dbfile" =>
        {
            Some(file)
        }
        _ => None,
    })?;
    Some(PathBuf::from(file.as_str())).filter(|file| file.is_absolute())
}

/// How a jail fares.
struct Jail {
    name: JailName,
    /// `None`: it does not run.
    scope: Option<Scope>,
    /// Firewall actions, which become one XDP ban.
    mapped: Vec<String>,
    /// Actions that nothing runs.
    left_out: Vec<String>,
    problems: Vec<String>,
}

/// Every enabled jail, and those that a fault keeps from running.
fn jails(loaded: &Loaded, commands: &[config::Command]) -> Vec<Jail> {
    let mut actions: HashMap<&str, Vec<&str>> = HashMap::new();
    for command in commands {
        if let [Value::Text(set), Value::Text(jail), Value::Text(add), Value::Text(action), ..] =
            &command[..]
            && set == "set"
            && add == "addaction"
        {
            actions.entry(jail).or_default().push(action);
        }
    }
    let running =
        loaded.settings.jails.iter().map(|jail| (jail.name.clone(), Some(jail.scope.clone())));
    let mut all: BTreeMap<JailName, Option<Scope>> = running.collect();
    for name in loaded.problems.iter().filter_map(|problem| problem.jail.clone()) {
        all.entry(name).or_insert(None);
    }
    let jail = |(name, scope): (JailName, Option<Scope>)| {
        let actions =
            actions.get(name.as_str()).cloned().unwrap_or_default().into_iter().map(str::to_owned);
        let (mapped, left_out) = actions.partition(|action| config::is_firewall(action));
        let of_jail = |problem: &&Problem| problem.jail.as_ref() == Some(&name);
        let problems = loaded.problems.iter().filter(of_jail);
        let problems = problems
            .filter(|problem| scope.is_none() || problem.severity == Severity::Error)
            .map(Problem::to_string)
            .collect();
        Jail { scope, mapped, left_out, problems, name }
    };
    all.into_iter().map(jail).collect()
}

/// What is taken over.
struct Taken<'a> {
    jails: HashMap<&'a str, (&'a JailSettings, Arc<Scope>)>,
    now: Timestamp,
    /// Bans that are live.
    live: Vec<Ban>,
    known: HashSet<(JailName, IpNet)>,
    /// Bans that are over, the oldest first.
    past: Vec<Ban>,
    /// Live bans of the firewall that the database lacks, by tool.
    held: BTreeMap<&'static str, usize>,
    /// Live bans of jails that do not run.
    orphans: BTreeMap<String, BTreeSet<IpNet>>,
    not_addresses: u64,
    notes: Vec<String>,
}

impl<'a> Taken<'a> {
    fn new(jails: &'a [JailSettings], now: Timestamp) -> Taken<'a> {
        let jails =
            jails.iter().map(|jail| (jail.name.as_str(), (jail, Arc::new(jail.scope.clone()))));
        Taken {
            jails: jails.collect(),
            now,
            live: Vec::new(),
            known: HashSet::new(),
            past: Vec::new(),
            held: BTreeMap::new(),
            orphans: BTreeMap::new(),
            not_addresses: 0,
            notes: Vec::new(),
        }
    }

    fn database(&mut self, database: database::Database) {
        self.not_addresses = database.not_addresses;
        let now = self.now.micros().div_euclid(1_000_000);
        let is_live = |ban: &Banned| ban.end().is_none_or(|end| end > now);
        let mut last = HashSet::new();
        for banned in database.last.into_iter().filter(is_live) {
            last.insert((banned.jail.clone(), banned.prefix, banned.since));
            match self.ban(&banned) {
                Some(ban) => self.take(ban),
                None => {
                    self.orphans.entry(banned.jail).or_default().insert(banned.prefix);
                }
            }
        }
        let is_past = |ban: &&Banned| !last.contains(&(ban.jail.clone(), ban.prefix, ban.since));
        let past: Vec<Ban> =
            database.history.iter().filter(is_past).filter_map(|banned| self.ban(banned)).collect();
        self.past = past;
    }

    fn firewall(&mut self, held: Vec<Held>) {
        for Held { jail, prefix, left, by } in held {
            let Some((settings, scope)) = self.jails.get(jail.as_str()) else {
                self.orphans.entry(jail).or_default().insert(prefix);
                continue;
            };
            if self.known.contains(&(settings.name.clone(), prefix)) {
                continue;
            }
            let until = match left.and_then(|left| u64::try_from(left).ok()) {
                Some(left) => Until::At(self.now.plus(Duration::from_secs(left))),
                None => ban_end(settings.ban_time, self.now),
            };
            let (jail, scope, since) = (settings.name.clone(), scope.clone(), self.now);
            self.take(Ban {
                prefix,
                jail,
                scope,
                since,
                until,
                failures: 0,
                count: 1,
                counted: true,
                origin: Origin::default(),
                lines: Vec::new(),
            });
            *self.held.entry(by).or_default() += 1;
        }
    }

    fn take(&mut self, ban: Ban) {
        if self.known.insert((ban.jail.clone(), ban.prefix)) {
            self.live.push(ban);
        }
    }

    /// In our words; `None` for a jail that does not run.
    fn ban(&self, banned: &Banned) -> Option<Ban> {
        let (jail, scope) = self.jails.get(banned.jail.as_str())?;
        Some(Ban {
            prefix: banned.prefix,
            jail: jail.name.clone(),
            scope: scope.clone(),
            since: Timestamp::from_seconds(banned.since),
            until: banned
                .end()
                .map_or(Until::Forever, |end| Until::At(Timestamp::from_seconds(end))),
            failures: banned.failures,
            count: banned.count,
            counted: true,
            origin: Origin::default(),
            lines: banned.lines.clone(),
        })
    }
}

/// Writes it into our own store.
fn store(state: &Path, loaded: &Loaded, taken: &Taken<'_>) -> anyhow::Result<()> {
    let Some(_one_at_a_time) = run::lock_state(state)? else {
        bail!("nothing is taken over: there is no state directory");
    };
    let path = state.join(store::FILE);
    let (store, found, _news) = Store::start(path.clone(), loaded.settings.store, clock::now)
        .context("there is no thread for the store")?;
    let fault = || {
        let why = match store.status().state {
            store::State::Works => "it takes too long".to_owned(),
            state => format!("{state:?}"),
        };
        anyhow::anyhow!(
            "the store `{}` could not be written: {why}; nothing of fail2ban's was changed",
            path.display()
        )
    };
    // It answers when it is open, or cannot be opened.
    let _ = found.blocking_recv();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let settle = || {
        let settled = store.settled();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, settled).await })
    };
    for handful in taken.past.chunks(HANDFUL) {
        for ban in handful {
            let ban = Arc::new(ban.clone());
            store.write(Write::Ban(ban.clone()));
            store.write(Write::Lifted { ban, by_hand: None });
        }
        settle().map_err(|_| fault())?.map_err(|_| fault())?;
    }
    for handful in taken.live.chunks(HANDFUL) {
        for ban in handful {
            store.write(Write::Ban(Arc::new(ban.clone())));
        }
        settle().map_err(|_| fault())?.map_err(|_| fault())?;
    }
    if store.close(PATIENCE) {
        Ok(())
    } else {
        bail!("the store `{}` could not be closed", path.display())
    }
}

fn in_json(jails: &[Jail], taken: &Taken<'_>, dry_run: bool) -> serde_json::Value {
    let jail = |jail: &Jail| {
        json!({
            "jail": jail.name.as_str(), "runs": jail.scope.is_some(),
            "scope": jail.scope.as_ref().map(Scope::to_string), "mapped_actions": jail.mapped,
            "actions_not_run": jail.left_out, "problems": jail.problems,
        })
    };
    let orphans: BTreeMap<&String, usize> =
        taken.orphans.iter().map(|(jail, bans)| (jail, bans.len())).collect();
    json!({
        "taken_over": !dry_run, "jails": jails.iter().map(jail).collect::<Vec<_>>(), "bans": taken.live.len(),
        "past_bans": taken.past.len(), "bans_of_firewall_only": taken.held, "bans_of_other_jails": orphans,
        "rows_without_address": taken.not_addresses, "notes": taken.notes,
    })
}

fn in_words(
    dir: &Path,
    dbfile: Option<&Path>,
    jails: &[Jail],
    taken: &Taken<'_>,
    dry_run: bool,
) -> String {
    use std::fmt::Write as _;
    let mut text = format!("fail2ban in {}\n", dir.display());
    let mut row = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    for jail in jails {
        match &jail.scope {
            None => row(format!("  [{}] does not run", jail.name)),
            Some(_) if jail.mapped.is_empty() => {
                row(format!("  [{}] runs, and bans nobody", jail.name))
            }
            Some(scope) => {
                row(format!(
                    "  [{}] runs; {} becomes an XDP ban of {scope}",
                    jail.name,
                    jail.mapped.join(", ")
                ));
            }
        }
        if !jail.left_out.is_empty() {
            row(format!("    not run by this version: {}", jail.left_out.join(", ")));
        }
        jail.problems.iter().for_each(|problem| row(format!("    {problem}")));
    }
    if let Some(dbfile) = dbfile {
        row(format!("database {}", dbfile.display()));
    }
    let held: usize = taken.held.values().sum();
    row(format!("  {} live bans, {} of the past", taken.live.len() - held, taken.past.len()));
    if taken.not_addresses > 0 {
        row(format!("  {} rows about no address are left out", taken.not_addresses));
    }
    for (tool, bans) in &taken.held {
        row(format!(
            "  {bans} bans that only {tool} holds; where it knows no end, bantime counts from now"
        ));
    }
    for (jail, bans) in &taken.orphans {
        row(format!("  {} bans of [{jail}], which does not run, are left out", bans.len()));
    }
    taken.notes.iter().for_each(|note| row(format!("  {note}")));
    let enabled: BTreeSet<&JailName> = taken.live.iter().map(|ban| &ban.jail).collect();
    if dry_run {
        row(format!("would take over {} bans in {} jails", taken.live.len(), enabled.len()));
    } else {
        row(format!(
            "took over {} bans in {} jails; they hold from the next start on",
            taken.live.len(),
            enabled.len()
        ));
    }
    row("Switch over: fail2ban may run on until the second command.".to_owned());
    row(format!("  fail2xdp run --config {}", dir.display()));
    row("  systemctl disable --now fail2ban".to_owned());
    row("And back:".to_owned());
    row("  fail2xdp detach && systemctl enable --now fail2ban".to_owned());
    text
}
