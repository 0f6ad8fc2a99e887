//! Suggestions for misspelt names.

/// Returns the candidates nearest to a name, nearest first. Distant ones are left out.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted = name.to_lowercase();
    let bound = (wanted.chars().count() / 3).clamp(1, 4);
    let mut found: Vec<(usize, &str)> = Vec::new();
    for candidate in candidates {
        let other = candidate.to_lowercase();
        let distance = strsim::damerau_levenshtein(&wanted, &other);
        let extends = wanted.len() >= 3 && (other.starts_with(&wanted) || wanted.starts_with(&other));
        // A candidate that shares no letter isn't near.
        let something_is_right = distance < wanted.chars().count().max(other.chars().count());
        if (distance <= bound && something_is_right) || (extends && other.len() >= 3) {
            found.push((distance, candidate));
        }
    }
    found.sort();
    found.dedup();
    found.truncate(3);
    found.into_iter().map(|(_, name)| name).collect()
}

/// Returns `Did you mean "a" or "b"?` if any candidate is near.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = nearest(name, candidates);
    let quoted: Vec<String> = near.iter().map(|name| format!("\"{name}\"")).collect();
    let (last, rest) = quoted.split_last()?;
    match rest.is_empty() {
        true => Some(format!("Did you mean {last}?")),
        false => Some(format!("Did you mean {} or {last}?", rest.join(", "))),
    }
}

/// Suggests near names, or else lists the valid ones: `The columns are a, b.`
pub fn hint<'a>(name: &str, plural: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    did_you_mean(name, candidates.iter().copied()).or_else(|| match candidates.len() {
        0 => None,
        1 => Some(format!("There is only {}.", candidates[0])),
        2..=20 => Some(format!("The {plural} are {}.", candidates.join(", "))),
        count => Some(format!("The {plural} are {}, … ({count}).", candidates[..20].join(", "))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let names = ["amount", "customer", "id", "ts"];
        assert_eq!(did_you_mean("amout", names), Some("Did you mean \"amount\"?".into()));
        assert_eq!(did_you_mean("Amount", names), Some("Did you mean \"amount\"?".into()));
        assert_eq!(did_you_mean("zebra", names), None);
        assert_eq!(
            did_you_mean("orde", ["order", "orders", "x"]),
            Some("Did you mean \"order\" or \"orders\"?".into())
        );
    }

    #[test]
    fn without_a_near_name_the_valid_ones_are_listed() {
        assert_eq!(hint("zebra", "columns", ["a", "b"]), Some("The columns are a, b.".into()));
        assert_eq!(hint("zebra", "columns", []), None);
    }
}
