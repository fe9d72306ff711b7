//! Formulas beside Python's own `eval`: random expressions over a ban, and random pieces of them that may be none.
use fail2xdp::config::{Formula, FormulaFault, Known, Number};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

mod peer;

/// Expressions put to both.
const EXPRESSIONS: usize = 4000;

/// Reads `[text, time, count, factor]`; answers with `["int" | "float" | "other", value]`, or the name of the exception.
/// `big`: a whole number on the way has more than 126 bits, and ours goes on as a float; or one is complex.
const JUDGE: &str = r#"
import ast, math, random, warnings
warnings.simplefilter("ignore")
random.random = lambda: 0.25
class Ban: pass
for request in sys.stdin:
    text, time, count, factor = json.loads(request)
    ban = Ban()
    ban.Time, ban.Count = time, count
    names = {"ban": ban, "banFactor": factor, "math": math, "random": random}
    try:
        tree = compile(text, "", "eval", ast.PyCF_ONLY_AST)
    except (SyntaxError, ValueError) as error:
        print(json.dumps("SyntaxError"))
        continue
    def big(node):
        try:
            value = eval(compile(ast.Expression(node), "", "eval"), names)
            return isinstance(value, complex) or isinstance(value, int) and value.bit_length() > 126
        except Exception:
            return False
    try:
        value = eval(compile(text, "", "eval"), names)
        if any(big(node) for node in ast.walk(tree) if isinstance(node, ast.expr)):
            answer = "big"
        elif isinstance(value, int):
            answer = ["int", str(int(value))]
        elif isinstance(value, float):
            answer = ["float", repr(value)]
        else:
            answer = ["other", ""]
    except Exception as error:
        answer = "big" if any(big(node) for node in ast.walk(tree) if isinstance(node, ast.expr)) \
            else type(error).__name__
    print(json.dumps(answer))
"#;

fn one_of<'t>(random: &mut StdRng, texts: &[&'t str]) -> &'t str {
    texts[random.random_range(0..texts.len())]
}

/// A random expression; whole numbers stay small enough to be exact mostly.
fn expression(random: &mut StdRng, depth: u32) -> String {
    if depth == 0 || random.random_ratio(1, 8) {
        let leaves = [
            "ban.Time",
            "ban.Count",
            "banFactor",
            "0",
            "1",
            "2",
            "3",
            "7",
            "20",
            "0.5",
            "1.5",
            "2.0",
            "1e3",
            ".25",
            "0x1f",
            "True",
            "math.e",
            "math.pi",
            "random.random()",
            "86400",
        ];
        return one_of(random, &leaves).to_owned();
    }
    let mut part = || expression(random, depth - 1);
    let (one, other, third) = (part(), part(), part());
    match random.random_range(0..16) {
        0..=4 => {
            let sign = one_of(random, &["+", "-", "*", "/", "//", "%"]);
            format!("{one} {sign} {other}")
        }
        5 => format!("({one}) {} ({other})", one_of(random, &["+", "-", "*", "/", "//", "%"])),
        6 => format!("({one}) ** {}", one_of(random, &["0", "1", "2", "3", "-1", "0.5"])),
        7 => format!("({one}) {} {}", one_of(random, &["<<", ">>"]), random.random_range(0..9)),
        8 => format!("({one} {} {other})", one_of(random, &["|", "&", "^"])),
        9 => format!("{one} {} {other}", one_of(random, &["<", "<=", ">", ">=", "==", "!="])),
        10 => format!("({one} if {other} else {third})"),
        11 => format!("({one} {} {other})", one_of(random, &["and", "or"])),
        12 => format!("{}({one})", one_of(random, &["not ", "-", "+", "~"])),
        13 => {
            let name = one_of(
                random,
                &[
                    "abs",
                    "int",
                    "float",
                    "round",
                    "bool",
                    "math.sqrt",
                    "math.log",
                    "math.exp",
                    "math.floor",
                    "math.ceil",
                    "math.log2",
                    "math.sin",
                    "math.tanh",
                    "math.fabs",
                    "math.trunc",
                    "math.log10",
                    "math.degrees",
                ],
            );
            format!("{name}({one})")
        }
        14 => format!("{}({one}, {other}, {third})", one_of(random, &["min", "max"])),
        _ => {
            let index = random.random_range(-3..3);
            let list = [
                format!("[{one}, {other}, {third}][{index}]"),
                format!("({one} in ({other}, {third}))"),
                format!("round({one}, {})", random.random_range(0..5)),
                format!("sum([{one}, {other}])"),
                format!("len(({one}, {other})) * {third}"),
                format!("pow({one}, 2)"),
                format!("math.fmod({one}, {other})"),
            ];
            list[random.random_range(0..list.len())].clone()
        }
    }
}

/// The expression with some of its characters gone.
fn damaged(random: &mut StdRng, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..random.random_range(1..3) {
        let at = random.random_range(0..chars.len());
        chars.remove(at);
        if chars.is_empty() {
            break;
        }
    }
    chars.into_iter().collect()
}

/// Why the answers differ, if they do.
fn difference(ours: &Result<Number, Wrong>, theirs: &Value) -> Option<String> {
    let differs = |_| Some(format!("we {ours:?}, Python {theirs}"));
    match (ours, theirs) {
        // Those numbers are infinite here.
        (_, Value::String(word))
            if ["big", "OverflowError", "MemoryError"].contains(&word.as_str()) =>
        {
            None
        }
        (Err(Wrong::Text(_)), Value::String(word)) if word == "SyntaxError" => None,
        (Err(Wrong::Fault(fault)), Value::String(word)) => {
            let name = match fault {
                FormulaFault::Zero => "ZeroDivisionError",
                FormulaFault::Domain => "ValueError",
                FormulaFault::Type => "TypeError",
                FormulaFault::Index => "IndexError",
            };
            if name == word { None } else { differs(()) }
        }
        // What is a list or a complex number there is none here.
        (Err(Wrong::Fault(FormulaFault::Type)), Value::Array(answer)) if answer[0] == "other" => {
            None
        }
        (Ok(Number::Int(value)), Value::Array(answer))
            if answer[0] == "int" && answer[1] == value.to_string().as_str() =>
        {
            None
        }
        (Ok(Number::Float(value)), Value::Array(answer)) if answer[0] == "float" => {
            let theirs: f64 = answer[1].as_str()?.parse().ok()?;
            let near = (value - theirs).abs() <= 1e-12 * theirs.abs();
            let same = *value == theirs || near || (value.is_nan() && theirs.is_nan());
            if same { None } else { differs(()) }
        }
        _ => differs(()),
    }
}

#[derive(Debug)]
#[expect(dead_code, reason = "shown where answers differ")]
enum Wrong {
    Text(String),
    Fault(FormulaFault),
}

fn ours(text: &str, time: u32, count: u32, factor: Number) -> Result<Number, Wrong> {
    let formula = Formula::new(text).map_err(|error| Wrong::Text(error.to_string()))?;
    let random = &mut || 0.25;
    formula.value(&mut Known { time, count, factor, random }).map_err(Wrong::Fault)
}

#[test]
fn formulas_come_to_what_python_makes_of_them() {
    let seed = std::env::var("FAIL2XDP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let (mut requests, mut answers, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for nth in 0..EXPRESSIONS {
        let depth = random.random_range(1..5);
        let mut text = expression(&mut random, depth);
        let broken = nth % 8 == 0;
        if broken {
            text = damaged(&mut random, &text).trim().to_owned();
        }
        let (time, count) = (random.random_range(1..100_000), random.random_range(1..40));
        let (factor, shown) = match random.random_range(0..3) {
            0 => (Number::Int(1), json!(1)),
            1 => (Number::Int(3), json!(3)),
            _ => (Number::Float(1.5), json!(1.5)),
        };
        requests.push(json!([text, time, count, shown]));
        answers.push(ours(&text, time, count, factor));
        texts.push((text, broken));
    }
    let theirs = peer::judge(JUDGE, &requests);
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (((text, broken), ours), theirs) in texts.iter().zip(&answers).zip(&theirs) {
        let is_syntax = theirs == "SyntaxError";
        // Of what is no expression of ours any more Python may know a meaning.
        if *broken && !is_syntax && matches!(ours, Err(Wrong::Text(_))) {
            continue;
        }
        compared += 1;
        wrong.extend(difference(ours, theirs).map(|why| format!("{text}: {why}")));
    }
    assert!(compared > EXPRESSIONS * 9 / 10, "{compared} compared");
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
