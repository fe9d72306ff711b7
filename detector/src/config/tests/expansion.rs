//! `%(name)s` and `<tag>`, across files.
use super::*;

#[test]
fn names_are_looked_up_in_the_section_then_in_default() {
    check_failregex(
        "a = own\nfailregex = %(a)s %(b)s %(B)s %(__name__)s 100%% <HOST>",
        [("jail.local", "[DEFAULT]\na = default\nb = <%(a)s>\n")],
        &["jail.conf:4 own <own> <own> j 100% <HOST>"],
    );
}

#[test]
fn other_sections_lend_their_raw_values() {
    check_failregex(
        "a = mine\nfailregex = %(other/x)s %(default/a)s %(DEFAULT/a)s %(other/a)s <HOST>",
        [("jail.local", "[DEFAULT]\na = default\n[other]\nx = <%(a)s>\n")],
        &["jail.conf:4 <mine> default default default <HOST>"],
    );
}

#[test]
fn known_is_the_filters_value_then_what_the_file_before_had() {
    let filter = (
        "filter.d/f.conf",
        "[Definition]\nfailregex = ^one <HOST>\n  ^two 50%% <HOST>\n[Init]\nx = <y>\ny = why\n",
    );
    check_failregex(
        "filter = f\nfailregex = %(known/failregex)s\n  ^three %(known/x)s <HOST>",
        [filter],
        &[
            "filter.d/f.conf:2 ^one <HOST>",
            "filter.d/f.conf:3 ^two 50% <HOST>",
            "jail.conf:5 ^three why <HOST>",
        ],
    );
    let ports = [
        ("jail.conf", "[j]\nenabled=true\nport=22\naction=xdp[port=\"%(port)s\"]\n"),
        ("jail.local", "[j]\nport = %(known/port)s,2222\n"),
    ];
    assert_eq!(jail("j", ports).scope.to_string(), "tcp:22,2222");
}

#[test]
fn the_version_and_the_directory_are_always_known() {
    check_failregex("failregex = %(fail2ban_confpath)s <HOST>", [], &["jail.conf:3 /etc/x <HOST>"]);
}

#[test]
fn what_cannot_be_expanded_disables_its_jail_only() {
    check_problem(
        "maxretry = %(nosuch)s",
        "error /etc/x/jail.conf:3: jail `j`: `maxretry` cannot be expanded: `%(nosuch)s` names no option of section `j` or `[DEFAULT]`: the jail does not run; correct the name or define the option",
    );
    check_problem(
        "failregex = a\n  100% <HOST>",
        "error /etc/x/jail.conf:4: jail `j`: `failregex` cannot be expanded: `% <HOST>` is neither `%%` nor `%(name)s`: the jail does not run; write `%%` for a percent sign",
    );
    check_problem(
        "a = %(b)s\nb = %(a)s\nmaxretry = %(a)s",
        "error /etc/x/jail.conf:3: jail `j`: `maxretry` cannot be expanded: `%(…)s` is nested more than 10 deep: the jail does not run; look for options that name one another; `%(known/…)s` reaches one file back only",
    );
    let loaded = load_with([(
        "jail.conf",
        "[a]\nenabled=true\nport=%(x)s\nmaxretry=%(x)s\n[b]\nenabled=true\n",
    )]);
    assert_eq!(loaded.expect("jail b").settings.jails.len(), 1);
}

#[test]
fn a_disabled_jail_is_not_looked_into() {
    let none = "warning /etc/x/jail.conf:1: no jail is enabled: nothing is looked for; set `enabled = true` in a jail's section";
    assert_eq!(
        problems([("jail.conf", "[a]\nenabled = maybe\nmaxretry = %(nosuch)s\n[b]\nport = %\n")]),
        none
    );
}

#[test]
fn ten_levels_are_enough_and_eleven_too_many() {
    let chain = |length: usize| {
        (1..length).map(|nth| format!("a{nth} = %(a{})s\n", nth + 1)).collect::<String>()
            + &format!("a{length} = 7\nmaxretry = %(a1)s")
    };
    check_problem(&chain(10), "");
    let section = format!("[j]\nenabled = true\n{}\n", chain(10));
    assert_eq!(jail("j", [("jail.conf", section.as_str())]).max_retry, 7);
    let deep = format!("[j]\nenabled = true\n{}\n", chain(11));
    assert!(problems([("jail.conf", deep.as_str())]).contains("nested more than 10 deep"));
}

#[test]
fn bombs_end_in_an_error() {
    let tenfold = |name: &str| format!("%({name})s").repeat(10);
    let options: String =
        (1..9).map(|nth| format!("a{nth} = {}\n", tenfold(&format!("a{}", nth + 1)))).collect();
    for (last, found) in [("", "takes more than"), (&*"x".repeat(100), "")] {
        let section = format!("[j]\nenabled = true\n{options}a9 = {last}\nmaxretry = %(a1)s\n");
        let problems = problems([("jail.conf", section.as_str())]);
        assert!(
            problems.contains(found) && problems.contains("the jail does not run"),
            "{problems}"
        );
    }
    let long = format!(
        "[j]\nenabled = true\na={}\nb={}\nmaxretry = %(b)s\n",
        "x".repeat(10_000),
        "%(a)s".repeat(200)
    );
    assert!(problems([("jail.conf", long.as_str())]).contains("grows beyond 1048576 bytes"));
}

#[test]
fn a_filters_options_parameters_and_init_values_weave_into_one_another() {
    let filter = (
        "filter.d/f.conf",
        concat!(
            "[INCLUDES]\nbefore = common.conf\n",
            "[Definition]\n_daemon = d\nfoo = definition\nmode = none\nmdre-normal = ^%(foo)s <foo>\n",
            "failregex = <mdre-<mode>> %(__prefix)s <lt_<logtype>/p> <HOST> <Foo>\n",
            "[Init]\nfoo = init\nmode = normal\n",
        ),
    );
    let common = (
        "filter.d/common.conf",
        "[DEFAULT]\n__prefix = <%(_daemon)s>\nlogtype = journal\n[lt_file]\np = file\n[lt_journal]\np = journal\n",
    );
    check_failregex(
        "filter = f",
        [filter, common],
        &["filter.d/f.conf:8 ^init init <d> file <HOST> definition"],
    );
    check_failregex(
        "filter = f[foo=\"%(__name__)s\", logtype=journal]",
        [filter, common],
        &["filter.d/f.conf:8 ^j j <d> journal <HOST> j"],
    );
    check_failregex(
        "filter = f\nbackend = systemd",
        [filter, common],
        &["filter.d/f.conf:8 ^init init <d> journal <HOST> definition"],
    );
}

#[test]
fn a_parameter_can_extend_the_value_it_replaces() {
    let filter = (
        "filter.d/f.conf",
        "[Definition]\nfailregex = ^(?:<agents>) <HOST>\n[Init]\nagents = a|b\n",
    );
    check_failregex(
        "filter = f[agents=\"x|<known/agents>\"]",
        [filter],
        &["filter.d/f.conf:2 ^(?:x|a|b) <HOST>"],
    );
}

/// What `<form>` or `%(form)s` in a failregex becomes where `x` is set in `[Definition]`, `[Init]`, as a parameter and
/// in `[DEFAULT]`, as the letters in `set` say; fail2ban 1.0.2 answered the same questions.
#[track_caller]
fn check_reach(form: &str, answers: &[(&str, &str)]) {
    for (set, expect) in answers {
        let put = |letter: char, text: &'static str| if set.contains(letter) { text } else { "" };
        let filter = format!(
            "{}[Definition]\n{}v = %(x)s\nw = <x>\nfailregex = ^{form} <HOST>\n[Init]\n{}[helper]\ny = 1\n",
            put('F', "[DEFAULT]\nx = F\n"),
            put('D', "x = D\n"),
            put('I', "x = I\n"),
        );
        let section = format!("[j]\nenabled=1\nfilter=f{}\n", put('P', "[x=P]"));
        let files = [("filter.d/f.conf", filter.as_str()), ("jail.conf", section.as_str())];
        let regex = jail("j", files).filter.failregex.remove(0).value;
        assert_eq!(regex, format!("^{expect} <HOST>"), "{form} with {set}");
    }
}

#[test]
fn parameters_come_before_init_before_definition_before_default() {
    for form in ["%(x)s", "<x>", "<v>", "<w>", "%(v)s"] {
        check_reach(
            form,
            &[("F", "F"), ("FD", "D"), ("FDI", "I"), ("FDIP", "P"), ("P", "P"), ("DP", "P")],
        );
    }
    check_reach("<X>", &[("F", "F"), ("FD", "D"), ("DI", "D"), ("DIP", "P"), ("FP", "P")]);
    check_reach("<known/x>", &[("FI", "I"), ("FDIP", "I"), ("D", "D"), ("FD", "D"), ("FP", "F")]);
    check_reach("%(known/x)s", &[("FI", "I"), ("FDIP", "I"), ("F", "F")]);
    check_reach("%(default/x)s", &[("FDIP", "F")]);
    check_reach("<helper/x>", &[("FDIP", "F"), ("DIP", "<helper/x>")]);
    check_reach("<nosuch/x>", &[("FDIP", "<nosuch/x>")]);
}

#[test]
fn a_filters_file_can_be_extended_by_its_local() {
    let files = [
        ("filter.d/f.conf", "[Definition]\nfailregex = ^one <HOST>\n"),
        ("filter.d/f.local", "[Definition]\nfailregex = %(known/failregex)s\n   ^two <HOST>\n"),
    ];
    check_failregex(
        "filter = f",
        files,
        &["filter.d/f.conf:2 ^one <HOST>", "filter.d/f.local:3 ^two <HOST>"],
    );
    let twice = files.into_iter().chain([(
        "filter.d/f.d/x.local",
        "[Definition]\nfailregex = %(known/failregex)s\n   ^three <HOST>\n",
    )]);
    let problems = problems(twice.chain([("jail.conf", "[j]\nenabled = true\nfilter = f\n")]));
    assert!(problems.contains("f.local:2: jail `j`: `failregex` cannot be expanded"), "{problems}");
}

#[test]
fn tags_in_a_jails_own_regex_stay() {
    check_failregex(
        "failregex = <mode> %(known/failregex)s <x>",
        [],
        &["jail.conf:3 <mode> ^plain <HOST>$ <x>"],
    );
}

#[test]
fn a_mode_that_the_filter_does_not_have_is_told() {
    let filter = (
        "filter.d/f.conf",
        "[Definition]\nfailregex = <re-<mode>>\n  ^x <HOST>\n[Init]\nmode = normal\nre-normal = ^y <HOST>\n",
    );
    let jail = ("jail.conf", "[j]\nenabled = true\nfilter = f[mode=strict]\n");
    assert_eq!(
        problems([filter, jail]),
        "error /etc/x/filter.d/f.conf:2: jail `j`: `failregex`: the filter has no option `<re-strict>`; the line is left out; correct the filter's parameters, above all `mode`"
    );
}
