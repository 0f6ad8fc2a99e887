//! Flink's constructor of maps, `MAP['a', 1, 'b', 2]`. The parser lacks it.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::reader::is_word;

/// Writes each such constructor as `make_map('a', 1, 'b', 2)`. Positions in errors stay those of the text.
///
/// Without a comma, `map['a']` is an element of a column.
pub(crate) fn rewrite(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    // The place of each open bracket, and true if there is a comma directly within it.
    let mut open: Vec<(usize, bool)> = Vec::new();
    for at in 0..tokens.len() {
        match &tokens[at].token {
            Token::LParen | Token::LBracket | Token::LBrace => open.push((at, false)),
            Token::Comma => {
                if let Some((_, has_comma)) = open.last_mut() {
                    *has_comma = true;
                }
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                let Some((begin, has_comma)) = open.pop() else { continue };
                if has_comma && constructs(&tokens, begin) {
                    tokens[begin - 1].token = Token::make_word("make_map", None);
                    tokens[begin].token = Token::LParen;
                    tokens[at].token = Token::RParen;
                }
            }
            _ => {}
        }
    }
    tokens
}

/// True if the bracket follows the word MAP, which isn't a field.
fn constructs(tokens: &[TokenWithSpan], bracket: usize) -> bool {
    let before = |places: usize| bracket.checked_sub(places).map(|at| &tokens[at].token);
    tokens[bracket].token == Token::LBracket
        && before(1).is_some_and(|word| is_word(word, "MAP"))
        && before(2) != Some(&Token::Period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::TokenReader;

    #[test]
    fn only_lists_of_keys_and_values_are_maps() {
        let check = |sql: &str, expected: &str| {
            let tokens = rewrite(TokenReader::new(sql).unwrap().rest_tokens());
            let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
            assert_eq!(words.concat(), expected);
        };
        check("MAP['a',f(1,2)]['a']", "make_map('a',f(1,2))['a']");
        check("MAP['a',map[1,[2,3]]]", "make_map('a',make_map(1,[2,3]))");
        check("map['a']+map[f(1,2)]+t.map[1,2]", "map['a']+map[f(1,2)]+t.map[1,2]");
    }
}
