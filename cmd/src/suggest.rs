//! The hint for a name that does not exist.

use uc_api::nearest::did_you_mean;

/// The nearest candidate (``did you mean `x`?``), or all of them if none is near and there are at
/// most eight. Otherwise empty.
pub(crate) fn hint<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    match did_you_mean(typed, candidates.iter().copied()) {
        Some(hint) => hint,
        None if candidates.is_empty() || candidates.len() > 8 => String::new(),
        None => format!("available: {}", candidates.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_is_the_nearest_name_or_the_list() {
        assert_eq!(hint("nginx", ["web", "redis"]), "available: web, redis");
        assert_eq!(hint("wep", ["web", "redis"]), "did you mean `web`?");
        assert_eq!(hint("x", []), "");
    }
}
