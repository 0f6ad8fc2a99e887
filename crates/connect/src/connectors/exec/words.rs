//! Splits a command line into words as a POSIX shell does. It supports no other feature of a shell.

/// Returns the words of `text`. Fails if a quote or a backslash is left open.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' => loop {
                let word = word.get_or_insert_default();
                match chars.next() {
                    None => return Err("a quote in it is not closed"),
                    Some('\'') => break,
                    Some(c) => word.push(c),
                }
            },
            '"' => loop {
                let word = word.get_or_insert_default();
                match chars.next() {
                    None => return Err("a quote in it is not closed"),
                    Some('"') => break,
                    Some('\\') => match chars.next() {
                        None => return Err("a quote in it is not closed"),
                        Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                        Some(c) => word.extend(['\\', c]),
                    },
                    Some(c) => word.push(c),
                }
            },
            '\\' => match chars.next() {
                None => return Err("nothing follows the backslash at its end"),
                Some(c) => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_parted_as_a_shell_does() {
        let check = |text: &str, expect: &[&str]| assert_eq!(split(text).unwrap(), expect, "{text}");
        check("tail -n +1  -F a.log", &["tail", "-n", "+1", "-F", "a.log"]);
        check(r#"a 'b  c' "d \"e\" \n" f\ g ''"#, &["a", "b  c", r#"d "e" \n"#, "f g", ""]);
        check("a'b'\"c\"", &["abc"]);
        check("  ", &[]);
        for open in ["a 'b", "a \"b", "a \\", "a \"b\\"] {
            assert!(split(open).is_err(), "{open}");
        }
    }
}
