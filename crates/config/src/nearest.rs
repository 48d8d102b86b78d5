//! The known name that a misspelt one was probably meant to be.

/// The name closest to `word`, if one is close enough to be worth a question.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    let scored = known.into_iter().filter_map(|name| {
        let distance = distance(&word, &name.to_lowercase());
        let close = distance <= allowed && distance < name.chars().count();
        // The beginning or end of one in the other is a shortened name rather than a slip of the finger.
        let part = word.len() >= 4 && (name.starts_with(&word) || name.ends_with(&word));
        (close || part).then_some((distance.min(if part { 2 } else { usize::MAX }), name))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

#[expect(
    clippy::indexing_slicing,
    reason = "rows have one place more than `b`, and both indexes stay below"
)]
/// The fewest insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 80; // longer words are no slips, and the table is quadratic
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(from != to);
            let mut best = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (a, b, count) in [
            ("", "", 0),
            ("a", "", 1),
            ("escapr", "escaper", 1),
            ("esacper", "escaper", 1),
            ("ab", "cd", 2),
        ] {
            assert_eq!(distance(a, b), count, "{a} {b}");
        }
    }

    #[test]
    fn only_a_close_name_is_offered() {
        let known = ["escaper", "auditor", "listen", "tcp_sock_speed_limit"];
        assert_eq!(nearest("escapr", known), Some("escaper"));
        assert_eq!(nearest("Lisen", known), Some("listen"));
        assert_eq!(nearest("speed_limit", known), Some("tcp_sock_speed_limit"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", ["y"]), None);
    }
}
