//! The saved corpus of the fuzz targets: none of it may panic or take long.
#[path = "../fuzz/targets.rs"]
mod targets;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// A single input that takes longer is a find.
const AT_MOST: Duration = Duration::from_secs(10);

fn run(target: &str, with: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let data = fs::read(&path).expect("an input");
        let start = Instant::now();
        with(&data);
        // Cut short, broken up: what a fuzzer would do first.
        with(&data[..data.len() / 2]);
        with(&data[data.len() / 2..]);
        assert!(start.elapsed() < AT_MOST, "{}: {:?}", path.display(), start.elapsed());
        count += 1;
    }
    count
}

#[test]
fn the_readers_corpus_ends() {
    assert!(run("reader", targets::reader) >= 10);
}

#[test]
fn the_translations_corpus_ends() {
    assert!(run("translation", targets::translation) >= 20);
}

#[test]
fn the_pickles_corpus_ends() {
    assert!(run("pickle", targets::pickle) >= 10);
}

#[test]
fn the_corpus_of_dates_ends() {
    assert!(run("date", targets::date) >= 9);
}

#[test]
fn the_corpus_of_filters_ends() {
    assert!(run("filter", targets::filter) >= 6);
}

#[test]
fn the_formulas_corpus_ends() {
    assert!(run("formula", targets::formula) >= 15);
}
