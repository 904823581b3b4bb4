//! What to say where a name does not exist.

use uc_api::nearest::did_you_mean;

/// `did you mean `x`?`, or the candidates, or nothing: whatever helps most.
pub(crate) fn hint<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    match did_you_mean(typed, candidates.iter().copied()) {
        Some(hint) => hint,
        None if candidates.is_empty() || candidates.len() > 8 => String::new(),
        None => format!("there is {}", candidates.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_is_near_the_names_are_listed() {
        assert_eq!(hint("nginx", ["web", "redis"]), "there is web, redis");
        assert_eq!(hint("wep", ["web", "redis"]), "did you mean `web`?");
        assert_eq!(hint("x", []), "");
    }
}
