//! Removal of secrets from statements that are displayed.
//!
//! A statement is stored as written, since it has to run again. In displays, `***` replaces the value of
//! every option whose name contains password, passphrase, secret, token or key.pem. It also replaces a password within a URL.

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Lexeme, TokenReader};

/// The replacement of a secret.
const HIDDEN: &str = "***";

/// Words in the names of secret options. Options whose names end in `_file` or `.url` are not secret.
const SECRET_WORDS: &[&str] = &["password", "passphrase", "secret", "token", "key.pem"];

/// Returns a statement without its secrets.
pub(crate) fn without_secrets(statement: &str) -> String {
    let Ok(reader) = TokenReader::new(statement) else { return without_secret_literals(statement) };
    let lexemes = reader.rest();
    let (mut shown, mut from) = (String::with_capacity(statement.len()), 0);
    for (place, lexeme) in lexemes.iter().enumerate() {
        // A comment may hold a statement, too.
        shown.push_str(&without_secret_literals(&statement[from..lexeme.range.start]));
        let written = &statement[lexeme.range.clone()];
        let (token, before) = (&lexeme.token.token, &lexemes[..place]);
        let is_option = is_text(token) || (is_plain(token) && ends_option(lexemes.get(place + 1)));
        match (is_option && is_secret_option(before), is_text(token)) {
            (true, _) => shown.push_str(&format!("'{HIDDEN}'")),
            (false, true) => shown.push_str(&without_url_password(written)),
            (false, false) => shown.push_str(written),
        }
        from = lexeme.range.end;
    }
    shown + &without_secret_literals(&statement[from..])
}

fn is_plain(token: &Token) -> bool {
    matches!(token, Token::Word(_) | Token::Number(..))
}

fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// Returns true if an option ends before this token.
fn ends_option(token: Option<&Lexeme>) -> bool {
    token.is_none_or(|lexeme| matches!(lexeme.token.token, Token::Comma | Token::RParen))
}

/// Returns true if the next token is the value of a secret option: `name.of.it =` comes before it.
fn is_secret_option(before: &[Lexeme]) -> bool {
    let before = match before {
        [rest @ .., minus] if minus.token.token == Token::Minus => rest,
        all => all,
    };
    let [name @ .., equals] = before else { return false };
    if equals.token.token != Token::Eq {
        return false;
    }
    let part = |lexeme: &Lexeme| match &lexeme.token.token {
        Token::Word(word) => Some(word.value.clone()),
        Token::SingleQuotedString(text) => Some(text.clone()),
        Token::Period => Some(".".to_string()),
        _ => None,
    };
    let mut parts: Vec<String> = name.iter().rev().map_while(part).collect();
    parts.reverse();
    is_secret_name(&parts.concat())
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    !name.ends_with("_file") && !name.ends_with(".url") && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Returns a text that is no statement, such as the beginning of one, without the secrets in its string literals.
fn without_secret_literals(statement: &str) -> String {
    let mut shown = String::with_capacity(statement.len());
    let mut rest = statement;
    while let Some(begin) = rest.find('\'') {
        let (before, literal) = rest.split_at(begin);
        let length = literal_length(literal);
        let (literal, after) = literal.split_at(length);
        shown.push_str(before);
        shown.push_str(&match follows_secret_name(&shown) {
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
fn follows_secret_name(before: &str) -> bool {
    let Some(name) = before.trim_end().strip_suffix('=') else { return false };
    let name = name.trim_end().trim_end_matches(['"', '\'']);
    let begin = name.rfind(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).map_or(0, |at| at + 1);
    is_secret_name(&name[begin..])
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
        for value in ["$$a\nb$$", "E'a\\'b'", "N'x'", "s3cret", "\"s3cret\"", "12345", "-5", "/* c */ 'x'"] {
            let shown = without_secrets(&format!("WITH (sasl.password = {value}, x = 'y')"));
            assert!(shown.ends_with("'***', x = 'y')") && !shown.contains("s3"), "{value}: {shown}");
        }
        check(
            "/* password = 'x' */ SELECT 1 -- token = 'y'",
            "/* password = '***' */ SELECT 1 -- token = '***'",
        );
        for name in ["password /* c */", "ssl.key.\"pem\"", "ssl . key . pem", "'api.token'", "\"Password\""]
        {
            let shown = without_secrets(&format!("-- Ann's broker\nWITH (a = 'b', {name} = 'x')"));
            assert!(shown.ends_with("= '***')") && shown.contains("a = 'b'"), "{name}: {shown}");
        }
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
            "SELECT * FROM t JOIN u ON t.token = u.token WHERE token = b || 'c'",
            "WITH (url = 'postgres://ann@host:5432/db', password_file = 'secret.txt')",
            "WITH (properties.sasl.oauthbearer.token.endpoint.url = 'https://host/token')",
            "",
        ] {
            check(text, text);
        }
        check("SELECT a = 'http://h:80/x' AS é", "SELECT a = 'http://h:80/x' AS é");
    }
}
