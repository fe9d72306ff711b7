//! Which jails share a reader thread: those that may read the same file, because it is read once, and because a
//! jail's matcher lives on one thread.
use super::files::Pattern;

/// Threads that read files at the most; more groups than this share them. Each costs an inotify instance, of which a
/// user has 128 by default.
pub(crate) const MAX_THREADS: usize = 16;

/// Parts jails, given by their patterns, into groups that have no file in common, now or when a glob grows.
pub(crate) fn group(jails: &[Vec<Pattern>], at_most: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (jail, patterns) in jails.iter().enumerate() {
        let meets = |group: &Vec<usize>| {
            let others = group.iter().flat_map(|other| &jails[*other]);
            others.into_iter().any(|other| patterns.iter().any(|own| own.may_overlap(other)))
        };
        let mut joined = vec![jail];
        for group in groups.extract_if(.., |group| meets(group)) {
            joined.extend(group);
        }
        joined.sort_unstable();
        groups.push(joined);
    }
    groups.sort();
    while groups.len() > at_most.max(1) {
        // The smallest two become one, so that no thread has much more to do than another.
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        if let (Some(least), Some(next)) = (groups.pop(), groups.last_mut()) {
            next.extend(least);
            next.sort_unstable();
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[track_caller]
    fn check(jails: &[&str], at_most: usize, expect: &[&[usize]]) {
        let patterns: Vec<Vec<Pattern>> = jails
            .iter()
            .map(|paths| paths.split(' ').map(|path| Pattern::new(Path::new(path))).collect())
            .collect();
        let mut groups = group(&patterns, at_most);
        groups.sort();
        assert_eq!(groups, expect);
    }

    #[test]
    fn jails_that_may_share_a_file_share_a_thread() {
        check(&["/a", "/b", "/c"], 9, &[&[0], &[1], &[2]]);
        check(&["/a", "/b", "/a"], 9, &[&[0, 2], &[1]]);
        check(&["/a", "/b", "/a /b"], 9, &[&[0, 1, 2]]);
        check(&["/log/a", "/x", "/log/*"], 9, &[&[0, 2], &[1]]);
        check(&["/log/a /x", "/x /y", "/y"], 9, &[&[0, 1, 2]]);
        check(&[], 9, &[]);
    }

    #[test]
    fn there_are_never_more_threads_than_allowed() {
        check(&["/a", "/b", "/c", "/d", "/e"], 2, &[&[0, 1, 2], &[3, 4]]);
        check(&["/a", "/b"], 0, &[&[0, 1]]);
    }
}
