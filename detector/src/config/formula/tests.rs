use super::*;

fn value(text: &str) -> String {
    let formula = match Formula::new(text) {
        Ok(formula) => formula,
        Err(error) => return error.to_string(),
    };
    let random = &mut || 0.25;
    let mut known = Known { time: 600, count: 3, factor: Number::Int(2), random };
    match formula.value(&mut known) {
        Ok(number) => number.to_string(),
        Err(fault) => fault.to_string(),
    }
}

#[track_caller]
fn check(text: &str, expect: &str) {
    assert_eq!(value(text), expect, "{text}");
}

#[test]
fn formulas_of_the_field() {
    check("ban.Time * (1<<(ban.Count if ban.Count<20 else 20)) * banFactor", "9600");
    check(
        "ban.Time * math.exp(float(ban.Count+1)*banFactor)/math.exp(1*banFactor)",
        "242057.27609564108",
    );
    check("ban.Time * math.pow(banFactor, ban.Count)", "4800.0");
    check("min(ban.Time * ban.Count ** 2, 86400) + 60 * random.random()", "5415.0");
    check("ban.Time * [1, 5, 10, 60][min(ban.Count, 3)]", "36000");
    check("(ban.Time *\n  2) # and no more", "1200");
    check("600 if ban.Count < 2 else 3600 if ban.Count < 4 else 86400", "3600");
}

#[test]
fn numbers_are_pythons() {
    check("-2 ** 2", "-4");
    check("2 ** -1", "0.5");
    check("2 ** 3 ** 2", "512");
    check("7 // -2", "-4");
    check("-7 // -2", "3");
    check("-7 % 3", "2");
    check("7 % -3", "-2");
    check("7.5 // 2", "3.0");
    check("-7.5 % 2", "0.5");
    check("7 / 2", "3.5");
    check("round(2.5) + round(3.5)", "6");
    check("round(2.675, 2)", "2.67");
    check("int(-3.7)", "-3");
    check("1 < 2 < 3", "1");
    check("not 0 and 5", "5");
    check("3 in (1, 2, 3)", "1");
    check("1 << 200", "1.6069380442589903e60");
    check("2 ** 5000", "inf");
    check("-1 >> 500", "-1");
    check("0x10 + 0b11 + 1_000", "1019");
    check("math.floor(-1.5) + math.ceil(1.5)", "0");
}

#[test]
fn what_python_would_raise_is_a_fault() {
    check("1 / (ban.Count - 3)", "it divides by zero");
    check("1.0 % 0", "it divides by zero");
    check("math.log(0)", "it asks a function for what it has no value for");
    check("math.sqrt(-1)", "it asks a function for what it has no value for");
    check("1 << -1", "it asks a function for what it has no value for");
    check("1.5 << 2", "it calculates with what is no fitting number");
    check("(-8) ** 0.5", "it calculates with what is no fitting number");
    check("[1, 2]", "it calculates with what is no fitting number");
    check("[1, 2][2]", "it asks for more than its list holds");
}

#[test]
fn what_is_no_formula_is_named_with_its_place() {
    check("ban.Time *", "the end where a number should be at character 11");
    check("ban.Time * (1 + 2", "the end where `)` should be at character 18");
    check(
        "ban.time",
        "`ban.time` is not known here: a ban has `ban.Time` and `ban.Count` at character 1",
    );
    check("1 + eval(1)", "`eval` is not known here at character 5");
    check("__import__('os')", "a text, where only numbers are known at character 12");
    check("math.factorial(3)", "`math.factorial` is not known here at character 1");
    check("1 if 2", "the end where `else` should be at character 7");
    check("1 +\n2", "a new line outside brackets at character 4");
    check("010", "`010` is no number at character 1");
    check("2j", "`2j` is no number at character 1");
    check("x := 1", "`x` is not known here at character 1");
    check("math.exp(1, 2)", "`math.exp` does not take 2 values at character 1");
    check("ban.Time.real", "`.` where an operator or the end should be at character 9");
    check("$", "`$` has no meaning at character 1");
    check("", "the end where a number should be at character 1");
}

#[test]
fn formulas_are_bounded() {
    let deep = format!("{}1{}", "(".repeat(49), ")".repeat(49));
    check(&deep, "1");
    let deeper = format!("{}1{}", "(".repeat(50), ")".repeat(50));
    check(&deeper, "nested deeper than 50 levels at character 51");
    check(&"-".repeat(900), "nested deeper than 50 levels at character 51");
    check(&format!("1{}", "+1".repeat(499)), "500");
    check(&format!("1{}", "+1".repeat(500)), "longer than 1000 bytes at character 1");
    check(&format!("2{}", "**2".repeat(49)), "inf");
    check(&format!("max({})", ["1"; 101].join(",")), "more than 100 values at character 205");
}

#[test]
fn a_factor_names_no_ban() {
    assert_eq!(Formula::constant("3 / 2"), Ok(Number::Float(1.5)));
    assert_eq!(Formula::constant("2"), Ok(Number::Int(2)));

    assert!(Formula::constant("ban.Time").is_err());
    assert!(Formula::constant("1 / 0").is_err());
}
