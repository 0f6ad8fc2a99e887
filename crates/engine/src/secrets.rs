//! Removal of secrets from statements that are displayed.
//!
//! A statement is stored as written, since it has to run again. In displays, `***` replaces the value of
//! every option whose name contains password, passphrase, secret, token or key.pem. It also replaces a password within a URL.

/// The replacement of a secret.
const HIDDEN: &str = "***";

/// Words in the names of secret options. Options whose names end in `_file` or `.url` are not secret.
const SECRET_WORDS: &[&str] = &["password", "passphrase", "secret", "token", "key.pem"];

/// Returns a statement without the secrets in its string literals.
pub(crate) fn without_secrets(statement: &str) -> String {
    let mut shown = String::with_capacity(statement.len());
    let mut rest = statement;
    while let Some(begin) = rest.find('\'') {
        let (before, literal) = rest.split_at(begin);
        let length = literal_length(literal);
        let (literal, after) = literal.split_at(length);
        shown.push_str(before);
        shown.push_str(&match is_secret_option(&shown) {
            true => format!("'{HIDDEN}'"),
            false => without_url_password(literal),
        });
        rest = after;
    }
    shown + rest
}

/// Returns the length in bytes of the literal at the start of a text. A doubled quote belongs to the literal.
fn literal_length(text: &str) -> usize {
    let mut quotes = text.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'\'').map(|(at, _)| at);
    while let Some(at) = quotes.next() {
        if text.as_bytes().get(at + 1) != Some(&b'\'') {
            return at + 1;
        }
        quotes.next();
    }
    text.len()
}

/// Returns true if the next literal is the value of a secret option.
fn is_secret_option(before: &str) -> bool {
    let Some(name) = before.trim_end().strip_suffix('=') else { return false };
    let name = name.trim_end().trim_end_matches(['"', '\'']);
    let begin = name.rfind(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).map_or(0, |at| at + 1);
    let name = name[begin..].to_lowercase();
    !name.ends_with("_file") && !name.ends_with(".url") && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Removes the password of a URL, before its host or among its parameters.
fn without_url_password(literal: &str) -> String {
    let Some(authority) = literal.find("://").map(|at| at + 3) else { return literal.to_string() };
    let mut shown = literal.to_string();
    // Search for the last @, since a password may contain an unescaped one.
    if let Some(at) = literal[authority..].rfind('@')
        && let Some(colon) = literal[authority..authority + at].find(':')
    {
        shown.replace_range(authority + colon + 1..authority + at, HIDDEN);
    }
    for word in SECRET_WORDS {
        let lower = shown.to_ascii_lowercase();
        if let Some(begin) = lower.find(&format!("{word}=")).map(|at| at + word.len() + 1) {
            let length = shown[begin..].find(['&', '\'']).unwrap_or(shown.len() - begin);
            shown.replace_range(begin..begin + length, HIDDEN);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(statement: &str, expect: &str) {
        assert_eq!(without_secrets(statement), expect);
    }

    #[test]
    fn passwords_are_not_shown() {
        check(
            "CREATE SINK k FROM v WITH (url = 'postgres://ann:s3@cr:et@host:5432/db', table = 't')",
            "CREATE SINK k FROM v WITH (url = 'postgres://ann:***@host:5432/db', table = 't')",
        );
        check("WITH (password = 'it''s mine', x = 'y')", "WITH (password = '***', x = 'y')");
        check("WITH (\"api.Token\"='abc')", "WITH (\"api.Token\"='***')");
        check(
            "url = 'postgres://h/db?user=ann&password=abc&x=1'",
            "url = 'postgres://h/db?user=ann&password=***&x=1'",
        );
        check("password = 'open to the end", "password = '***'");
        for name in [
            "properties.ssl.key.pem",
            "properties.ssl.key.password",
            "properties.sasl.password",
            "properties.sasl.oauthbearer.client.secret",
            "properties.sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            check(&format!("WITH ({name} = '-- a\n-- b')"), &format!("WITH ({name} = '***')"));
        }
    }

    #[test]
    fn all_else_is_shown_as_it_is() {
        for text in [
            "SELECT 'it''s' || '://' FROM t WHERE a = 'x'",
            "WITH (url = 'postgres://ann@host:5432/db', password_file = 'secret.txt')",
            "WITH (properties.sasl.oauthbearer.token.endpoint.url = 'https://host/token')",
            "",
        ] {
            check(text, text);
        }
        check("SELECT a = 'http://h:80/x' AS é", "SELECT a = 'http://h:80/x' AS é");
    }
}
