//! Suggests the nearest existing name ("did you mean …?"). Machines, services, contexts and compose
//! keys share this rule.

/// Characters compared of each text. Names are shorter, and the effort grows with the square.
const MAX_LETTERS: usize = 128;

/// Returns the candidate nearest to `typed`, or `None` if no candidate is near enough. At most a
/// third of the characters can differ (one difference is always allowed), and at least one must
/// match. Of equally near candidates the first wins.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (typed.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(typed, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= limit && *edits < candidate.chars().count())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Returns the hint ``did you mean `x`?`` if some candidate is near enough.
pub fn did_you_mean<'a>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(typed, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// Counts the edits (insert, delete, replace, swap neighbours) from one text to the other, ignoring
/// case. This is the optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let letters =
        |text: &str| -> String { text.to_lowercase().chars().take(MAX_LETTERS).collect() };
    strsim::osa_distance(&letters(a), &letters(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "ab", 2),
            ("web", "Web", 0),
            ("wbe", "web", 1),
            ("redsi", "redis", 1),
            ("kitten", "sitting", 3),
            ("ä", "a", 1),
            ("a", "xyz", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn only_what_may_be_meant_is_suggested() {
        for (typed, candidates, meant) in [
            ("wrker", vec!["web", "worker", "redis"], Some("worker")),
            ("Web", vec!["web"], Some("web")),
            ("m-4", vec!["m-1", "m-2"], Some("m-1")),
            (
                "enviroment",
                vec!["env_file", "environment"],
                Some("environment"),
            ),
            ("nginx", vec!["web", "worker", "redis"], None),
            ("replicas", vec!["environment", "image", "ports"], None),
            ("a", vec!["b"], None),
            ("x", vec![], None),
        ] {
            assert_eq!(nearest(typed, candidates), meant, "{typed}");
        }
    }

    #[test]
    fn a_very_long_word_costs_no_more() {
        let long = "x".repeat(1 << 20);
        assert_eq!(nearest(&long, ["web"]), None);
        assert_eq!(
            did_you_mean("wbe", ["web"]).as_deref(),
            Some("did you mean `web`?")
        );
    }
}
