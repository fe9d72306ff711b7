//! Promise: of each file in fail2ban's `action.d` becomes what `docs/actions.md` says, and what is run is what fail2ban itself
//! would run: the same commands, with the same values, for tickets full of what a shell could take for orders.
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use fail2xdp::{
    action::{
        Trial,
        wire::{Kind, Ticket},
    },
    config::{
        self, ActionKind, ActionSettings, JailSettings, ReadFault, Settings, Tree, is_firewall,
    },
    config_tree::DirTree,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

mod peer;

/// fail2ban's actions, and one jail with some of them.
struct OneJail {
    files: DirTree,
    jail: String,
    own: BTreeMap<String, String>,
}

impl Tree for OneJail {
    fn root(&self) -> &Path {
        self.files.root()
    }

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, ReadFault> {
        if file == self.root().join("jail.conf") {
            return Ok(Some(self.jail.clone().into_bytes()));
        }
        let Ok(inside) = file.strip_prefix(self.root().join("action.d")) else { return Ok(None) };
        match self.own.get(&*inside.to_string_lossy()) {
            Some(text) => Ok(Some(text.clone().into_bytes())),
            None => self.files.read(file),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<String>, ReadFault> {
        match folder.ends_with("action.d") {
            true => self.files.list(folder),
            false => Ok(Vec::new()),
        }
    }
}

/// A jail with these actions, of fail2ban's files or of one that is given.
fn loaded(action: &str, own: Option<(&str, &str)>) -> (Settings, JailSettings) {
    let jail = format!(
        "[web]\nenabled = true\nbackend = polling\nlogpath = /var/log/x.log\nbantime = 10m\naction = {action}\n"
    );
    let own = own.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let files = DirTree::new(&peer::config());
    let loaded = config::load(&OneJail { files, jail, own: own.into_iter().collect() });
    let settings = loaded.expect("a configuration").settings;
    let jail = settings.jails.first().expect("the jail runs").clone();
    (settings, jail)
}

fn properties(action: &ActionSettings) -> &[(String, String)] {
    match &action.kind {
        ActionKind::Commands(properties) => properties,
        ActionKind::Native(native) => panic!("{native:?} runs no commands"),
    }
}

/// What of fail2ban's actions is asked: the commands that it would run, one list for each thing that happens.
const JUDGE: &str = r#"
import fail2ban.server.action
fail2ban.server.action.allowed_ipv6 = lambda: True
from fail2ban.server.action import CommandAction
from fail2ban.server.actions import Actions
from fail2ban.server.ticket import BanTicket
from fail2ban.server.utils import Utils
class Counts:
    def size(self): return 1
    def getBanTotal(self): return 1
    def getFailTotal(self): return 0
class Banning:
    banManager = Counts()
    banEpoch = 0
    def getBanTime(self): return 600
    def _getActionInfo(self, ticket):
        return Actions.ActionInfo(ticket or BanTicket("", 1124013600.5), jail)
class Filter:
    class failManager:
        size = staticmethod(lambda: 0)
        getFailTotal = staticmethod(lambda: 0)
class Jail:
    name = "web"
    actions = Banning()
    filter = Filter()
    database = None
    def __str__(self): return self.name
jail = Jail()
def made(request):
    action = CommandAction(jail, request["name"])
    for option, value in request["properties"]:
        if option in ("actionstart_on_demand", "actionrepair_on_unban", "norestored"):
            value = value.lower() in ("1", "on", "true", "yes")
        setattr(action, option, value)
    return action
def info(ticket):
    made = BanTicket(ticket["id"], ticket["time"], ticket["matches"])
    made.setAttempt(ticket["failures"])
    made.setBanTime(ticket["ban_time"])
    made.setBanCount(ticket["ban_count"])
    for field, text in ticket["fields"].items():
        made.setData(field, text)
    return jail.actions._getActionInfo(made)
def perform(action, kind, about):
    if kind == "start": action.start()
    elif kind == "stop": action.stop()
    elif kind == "ban": action.ban(about)
    elif kind == "reban": action.reban(about)
    elif kind == "prolong" and action._prolongable: action.prolong(about)
    elif kind == "unban": action.unban(about)
    elif kind == "reload": action.reload()
    elif kind == "check": action.consistencyCheck()
    elif kind == "flush":
        try: action.flush()
        except Exception:
            action.consistencyCheck(lambda: bool(getattr(action, "actionrepair_on_unban", None)))
            raise
"#;

/// Commands as fail2ban would hand them to its shell.
const COMMANDS: &str = r#"
for line in sys.stdin:
    request = json.loads(line)
    action = made(request)
    commands = []
    def run(command, timeout=60, **kw):
        commands.append(command if isinstance(command, list) else [command])
        return True
    action.executeCmd = run
    MyTime.setTime(1124013600.5)
    about, answers = info(request["ticket"]), []
    for kind in request["kinds"]:
        commands = []
        perform(action, kind, about)
        answers.append([command for command in commands if command != [""]])
    print(json.dumps(answers))
"#;

const KINDS: [Kind; 7] =
    [Kind::Start, Kind::Ban, Kind::Prolong, Kind::Reban, Kind::Unban, Kind::Flush, Kind::Stop];

fn ticket(id: &str, texts: &[&str]) -> Ticket {
    let names = ["user", "host", "fport"];
    let fields =
        names.iter().zip(texts).map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Ticket {
        id: id.to_owned(),
        failures: 5,
        time: 1_124_013_500.0,
        ban_time: 600,
        ban_count: 1,
        matches: texts.iter().map(|text| (*text).to_owned()).collect(),
        fields: fields.collect(),
        ..Ticket::default()
    }
}

/// `<ip-rev>` of a network as fail2ban has it, and ours.
const REVERSED: (&str, &str) = ("0/24.2.0.192.", "0.2.0.192.");

fn tickets() -> Vec<Ticket> {
    vec![
        ticket("192.0.2.1", &["plain", "words and more"]),
        ticket("2001:db8::1", &["$(touch /tmp/f2x) `id`", "\"; id; '", "a\nb\r\n\\c"]),
        ticket("192.0.2.0/24", &["<ip> <F-USER> <matches>", "!#&|*?~<>^()[]{}", "äöü € 日本"]),
        ticket("raw id", &["%s %(x)s", "-e\t\u{1}"]),
    ]
}

#[track_caller]
fn commands(
    settings: &Settings,
    jail: &JailSettings,
    action: &ActionSettings,
    ticket: &Ticket,
    kinds: &[Kind],
) -> Vec<Vec<Vec<String>>> {
    let trial = Trial {
        settings,
        jail,
        action,
        ipv6: true,
        tasks: kinds.iter().map(|kind| (*kind, ticket.clone())).collect(),
        now: 1_124_013_600.5,
        dry: true,
    };
    let tried = trial.run().expect("commands").into_iter();
    let steps = tried.map(|tried| {
        assert_eq!(tried.failed, None);
        let steps = tried.steps.into_iter();
        steps.map(|step| [vec![step.text], step.arguments].concat()).collect()
    });
    steps.collect()
}

fn request(action: &ActionSettings, ticket: &Ticket, kinds: &[Kind]) -> Value {
    json!({ "name": action.name, "properties": properties(action), "ticket": ticket, "kinds": kinds })
}

/// Names of the files in fail2ban's `action.d`.
fn files() -> Vec<String> {
    let entries = fs::read_dir(peer::config().join("action.d")).expect("action.d");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What an action of this name needs to be whole, as its own file says.
fn call(name: &str) -> String {
    if name == "smtp.py" {
        return "smtp.py[host=localhost, dest=root, sender=f2b, matches=ipmatches]".to_owned();
    }
    format!(
        "{name}[name=web, dest=\"admin@example.net\", sender=f2b, port=\"80,443\", category=15, apikey=S3CRET, \
         abuseipdb_apikey=S3CRET, blocklist_de_apikey=S3CRET, email=a@example.net, service=web, cfuser=u, cftoken=S3CRET, \
         cfzone=z, logpath=/nowhere/x.log, userid=1, myip=192.0.2.99, lines=2]"
    )
}

#[test]
fn every_stock_action_becomes_what_the_table_says() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/actions.md");
    let table = fs::read_to_string(table).expect("the table");
    let rows: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            Some((cells.next()?.trim_end_matches('`'), cells.next()?))
        })
        .collect();
    let mut differences = Vec::new();
    for file in files() {
        let row = rows.get(file.as_str());
        let row = row.unwrap_or_else(|| panic!("{file} is not in docs/actions.md"));
        let name = file.trim_end_matches(".conf");
        let (_, jail) = loaded(&call(name), None);
        let is = match (&jail.actions[..], jail.scope.is_nothing()) {
            ([], false) => format!("XDP ban, {}", jail.scope),
            ([_], true) if name.ends_with("-common") => "included".to_owned(),
            ([ActionSettings { kind: ActionKind::Native(_), .. }], true) => "mapped to".to_owned(),
            ([_], true) => "run".to_owned(),
            other => panic!("{file}: {other:?}"),
        };
        assert_eq!(is_firewall(name), is.starts_with("XDP"), "{file}");
        if !row.starts_with(&is) {
            differences.push(format!("{file} is `{is}`, the table says `{row}`"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    assert_eq!(rows.len(), files().len());
}

#[test]
fn commands_are_those_of_fail2ban() {
    let (mut asked, mut ours) = (Vec::new(), Vec::new());
    for file in files() {
        let Some(name) = file.strip_suffix(".conf").filter(|name| !is_firewall(name)) else {
            continue;
        };
        let (settings, jail) = loaded(&call(name), None);
        let action = &jail.actions[0];
        for ticket in tickets() {
            asked.push(request(action, &ticket, &KINDS));
            ours.push((file.clone(), commands(&settings, &jail, action, &ticket, &KINDS)));
        }
    }
    assert!(asked.len() > 80, "{} are asked", asked.len());
    let theirs = peer::judge(&format!("{JUDGE}{COMMANDS}"), &asked);
    for ((file, ours), theirs) in ours.into_iter().zip(theirs) {
        // What is secret is not shown; and fail2ban's name of a network's domain is none.
        let shown = theirs.to_string().replace("S3CRET", "***").replace(REVERSED.0, REVERSED.1);
        assert_eq!(json!(ours).to_string(), shown, "{file}");
    }
}

/// Firewalls are XDP bans here; with another name they are commands with families, checks and repairs.
#[test]
fn commands_of_firewalls_would_be_those_of_fail2ban() {
    let (mut asked, mut ours) = (Vec::new(), Vec::new());
    for file in files() {
        let Some(name) = file.strip_suffix(".conf").filter(|name| is_firewall(name)) else {
            continue;
        };
        let text = fs::read_to_string(peer::config().join("action.d").join(&file)).expect("a file");
        let own = Some(("other-name.conf", text.as_str()));
        let (settings, jail) = loaded(&call("other-name"), own);
        let action = &jail.actions[0];
        for ticket in tickets() {
            asked.push(request(action, &ticket, &KINDS));
            ours.push((name.to_owned(), commands(&settings, &jail, action, &ticket, &KINDS)));
        }
    }
    let theirs = peer::judge(&format!("{JUDGE}{COMMANDS}"), &asked);
    for ((file, ours), theirs) in ours.into_iter().zip(theirs) {
        assert_eq!(json!(ours), theirs, "{file}");
    }
}

/// Every tag, and every way to write one.
const TAGS: &str = "\
[Definition]
actionstart = start <family>|<ip>|<fid>|<time>|<bantime>|<failures>|<bancount>|<restored>|<matches>|<jail.banned>|<ip-rev>
actionstop = stop <family>
actionreload = reload <name> <actname>
actionban = ban <ip> <fid> <family> <ip-rev> <ip-host> <failures> <time> <bantime> <bancount> <restored> '<matches>' \"<ipmatches>\"
            <ipjailmatches> <ipfailures> <ipjailfailures> <F-USER> <F-HOST> <F-PORT> <F-NONE> <F-lower> <F-FAILURES> <br><sp>
            <jail.banned> <jail.banned_total> <jail.found> <jail.found_total> <none> <sh-hostname> <timeout> <norestored> <<x>y>
            <fq-hostname>
actionunban = unban <ip>
actionprolong = prolong <ip> <bantime>
actionreban = again <fid>
actionflush = flush <family> <tool>
[Init]
x = z
zy = woven
tool = four
norestored = 1
[Init?family=inet6]
tool = six
";

#[test]
fn every_tag_is_that_of_fail2ban() {
    let (settings, jail) = loaded("tags", Some(("tags.conf", TAGS)));
    let action = &jail.actions[0];
    let kinds = [&KINDS[..], &[Kind::Reload]].concat();
    let tickets = tickets();
    let asked: Vec<Value> = tickets.iter().map(|ticket| request(action, ticket, &kinds)).collect();
    let theirs = peer::judge(&format!("{JUDGE}{COMMANDS}"), &asked);
    for (ticket, theirs) in tickets.iter().zip(theirs) {
        let ours = commands(&settings, &jail, action, ticket, &kinds);
        let shown = theirs.to_string().replace(REVERSED.0, REVERSED.1);
        assert_eq!(json!(ours).to_string(), shown, "{ticket:?}");
    }
}

/// A step says its name and ends as it is planned to.
const STEP: &str = "#!/bin/sh
cd \"$1\" || exit 99
shift
count=$(cat \"$1.count\" 2>/dev/null || echo 0)
echo $((count + 1)) > \"$1.count\"
echo \"$*\" >> log
status=$(sed -n \"$((count + 1))p\" \"$1.plan\" 2>/dev/null)
exit ${status:-0}
";

const RUN: &str = r#"
for line in sys.stdin:
    request = json.loads(line)
    action, failed = made(request), []
    for kind, ticket in request["tasks"]:
        try:
            perform(action, kind, info(ticket))
            failed.append(False)
        except Exception:
            failed.append(True)
    print(json.dumps(failed))
"#;

const STEPS: [&str; 8] = [
    "actionstart",
    "actionstop",
    "actioncheck",
    "actionban",
    "actionunban",
    "actionflush",
    "actionreban",
    "actionprolong",
];

/// Plans of failures, by chance: the steps that both take are the same, one after the other.
#[test]
fn what_follows_a_failure_is_what_follows_in_fail2ban() {
    let folder = tempfile::tempdir().expect("a directory");
    let step = folder.path().join("step");
    fs::write(&step, STEP).expect("a script");
    fs::set_permissions(&step, fs::Permissions::from_mode(0o755)).expect("a mode");
    let mut random = StdRng::seed_from_u64(8);
    let (mut asked, mut ours) = (Vec::new(), Vec::new());
    for nth in 0..30 {
        let [our, their] = ["ours", "theirs"].map(|who| folder.path().join(format!("{nth}-{who}")));
        let is_conditional = random.random_bool(0.5);
        let mut options: Vec<&str> = STEPS
            .into_iter()
            .filter(|option| *option != "actioncheck" || random.random_bool(0.8))
            .collect();
        if random.random_bool(0.5) {
            options.push("actionrepair");
        }
        let mut text = String::from("[Definition]\n");
        for option in &options {
            let about = match *option {
                "actionban" | "actionunban" | "actionreban" | "actionprolong" => "<ip>",
                _ if is_conditional => "<family>",
                _ => "",
            };
            text += &format!("{option} = {} <dir> {option} {about}\n", step.display());
        }
        if random.random_bool(0.5) {
            text += "actionrepair_on_unban = true\n";
        }
        if random.random_bool(0.3) {
            text += &format!("actionstart_on_demand = {}\n", random.random_bool(0.5));
        }
        text += "[Init]\nx = 1\n";
        if is_conditional {
            text += "[Init?family=inet6]\nx = 2\n";
        }
        for dir in [&our, &their] {
            fs::create_dir(dir).expect("a directory");
        }
        for option in &options {
            let statuses: String =
                (0..8).map(|_| if random.random_bool(0.3) { "1\n" } else { "0\n" }).collect();
            for dir in [&our, &their] {
                fs::write(dir.join(format!("{option}.plan")), &statuses).expect("a plan");
            }
        }
        let mut tasks = vec![(Kind::Start, "192.0.2.1")];
        for _ in 0..random.random_range(2..7) {
            let kind = match random.random_range(0..10) {
                0..5 => Kind::Ban,
                5..7 => Kind::Unban,
                7 => Kind::Prolong,
                8 => Kind::Reban,
                _ => Kind::Check,
            };
            let who = ["192.0.2.1", "2001:db8::1"][usize::from(random.random_bool(0.4))];
            tasks.push((kind, who));
        }
        if random.random_bool(0.5) {
            tasks.push((Kind::Flush, "192.0.2.1"));
        }
        tasks.push((Kind::Stop, "192.0.2.1"));
        let action = |dir: &PathBuf| format!("steps[dir=\"{}\"]", dir.display());
        let own = Some(("steps.conf", text.as_str()));
        let (_, jail) = loaded(&action(&their), own);
        let told: Vec<Value> =
            tasks.iter().map(|(kind, who)| json!([kind, ticket(who, &[])])).collect();
        let properties = properties(&jail.actions[0]);
        asked.push(json!({ "name": "steps", "properties": properties, "tasks": told }));
        let (settings, jail) = loaded(&action(&our), own);
        let failed = try_all(&settings, &jail, &tasks);
        ours.push((our, their, text, tasks, failed));
    }
    let theirs = peer::judge(&format!("{JUDGE}{RUN}"), &asked);
    for ((our, their, text, tasks, failed), theirs) in ours.into_iter().zip(theirs) {
        let log =
            |dir: &PathBuf| steps_of(&fs::read_to_string(dir.join("log")).unwrap_or_default());
        assert_eq!(log(&our), log(&their), "{text}{tasks:?} in {}", our.display());
        assert_eq!(json!(failed), theirs, "{text}{tasks:?}");
    }
}

/// What was run, line by line; families that are stopped or flushed together in one order.
fn steps_of(log: &str) -> Vec<Vec<String>> {
    let mut steps: Vec<Vec<String>> = Vec::new();
    let together =
        |line: &str| ["actionstop", "actionflush"].into_iter().find(|it| line.starts_with(it));
    for line in log.lines() {
        match steps.last_mut() {
            Some(last) if together(line).is_some() && together(&last[0]) == together(line) => {
                last.push(line.to_owned());
                last.sort_unstable();
            }
            _ => steps.push(vec![line.to_owned()]),
        }
    }
    steps
}

/// Runs the tasks for real; which of them failed.
fn try_all(settings: &Settings, jail: &JailSettings, tasks: &[(Kind, &str)]) -> Vec<bool> {
    let trial = Trial {
        settings,
        jail,
        action: &jail.actions[0],
        ipv6: true,
        tasks: tasks.iter().map(|(kind, who)| (*kind, ticket(who, &[]))).collect(),
        now: 1_124_013_600.5,
        dry: false,
    };
    let tried = trial.run().expect("commands");
    tried.into_iter().map(|tried| tried.failed.is_some()).collect()
}
