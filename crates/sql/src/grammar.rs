//! The grammar of every text: sqlparser's generic dialect with the precedence of PostgreSQL's operators. The
//! generic dialect accepts PostgreSQL's grammar and most of what other systems write.
//!
//! In the generic dialect `a ->> 'k' = 'v'` is `a ->> ('k' = 'v')`.

use std::any::TypeId;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::dialect::{lambdas, sql_json, xml};

/// The number of times per token that the parser may start to read an expression. A valid statement without
/// much backtracking needs fewer.
const TRIES: usize = 64;
const TRIES_MIN: usize = 10_000;

/// The dialect.
#[derive(Debug)]
pub(crate) struct Grammar {
    /// The number of expressions that the parser may still start to read; none for no bound. If the parser
    /// can't read a text one way, it tries others, so in `ARRAY[ARRAY[…` the tries double with each level.
    pub(crate) tries: Option<AtomicUsize>,
    /// True if `FOR SYSTEM_TIME AS OF` may follow a table. The parser then also reads `AT`, `BEFORE` and
    /// `CHANGES` after a table as such a clause, rather than as an alias.
    pub(crate) versions: bool,
}

const GENERIC: GenericDialect = GenericDialect;

/// The precedence of `^`: above multiplication.
const POWER: u8 = 42;

/// The precedence of a sign before an operand: `-2 ^ 2` is 4.
const SIGN: u8 = 45;

/// The precedence of all operators that have none of their own: above comparisons, below arithmetic.
const OTHER: u8 = 25;

/// Delegates methods to the generic dialect.
macro_rules! as_generic {
    ($($method:ident)*) => {
        $(fn $method(&self) -> bool {
            GENERIC.$method()
        })*
    };
}

impl Grammar {
    /// Returns the same grammar with a bound for a text of this many tokens.
    pub(crate) fn bounded(&self, tokens: usize) -> Grammar {
        let tries = tokens.saturating_mul(TRIES).max(TRIES_MIN);
        Grammar { tries: Some(AtomicUsize::new(tries)), versions: self.versions }
    }
}

/// True if a token is this word, unquoted and in any case.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

/// Returns the prefix operator of geometric types that a token is.
fn geometric_prefix(token: &Token) -> Option<UnaryOperator> {
    Some(match token {
        Token::Sharp => UnaryOperator::Hash,
        Token::AtAt => UnaryOperator::DoubleAt,
        Token::QuestionPipe => UnaryOperator::QuestionPipe,
        Token::CustomBinaryOperator(symbol) => match symbol.as_str() {
            "@-@" => UnaryOperator::AtDashAt,
            "?-" => UnaryOperator::QuestionDash,
            "?|" => UnaryOperator::QuestionPipe,
            _ => return None,
        },
        _ => return None,
    })
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

impl Grammar {
    /// Reads `[NOT] BETWEEN SYMMETRIC low AND high`: either end may be the lower one.
    fn symmetric(&self, parser: &mut Parser<'_>, left: &Expr) -> Option<Result<Expr, ParserError>> {
        let word = |at: usize, word: &str| is_word(&parser.peek_nth_token_ref(at).token, word);
        let negated = word(0, "NOT");
        let first = usize::from(negated);
        if !word(first, "BETWEEN") || !word(first + 1, "SYMMETRIC") {
            return None;
        }
        (0..first + 2).for_each(|_| parser.advance_token());
        let precedence = self.prec_value(Precedence::Between);
        let mut read = || {
            let one = parser.parse_subexpr(precedence)?;
            parser.expect_keyword(Keyword::AND)?;
            Ok((one, parser.parse_subexpr(precedence)?))
        };
        let between = |(one, other): (Expr, Expr)| {
            let part = |low: &Expr, high: &Expr| Expr::Between {
                expr: Box::new(left.clone()),
                negated: false,
                low: Box::new(low.clone()),
                high: Box::new(high.clone()),
            };
            let either = binary(part(&one, &other), BinaryOperator::Or, part(&other, &one));
            let either = Expr::Nested(Box::new(either));
            match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(either) },
                false => either,
            }
        };
        Some(read().map(between))
    }
}

impl Dialect for Grammar {
    /// `(jsonb_each(j)).*`
    fn supports_select_expr_star(&self) -> bool {
        true
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        if let Some(tries) = &self.tries {
            let spend = |left: usize| left.checked_sub(1);
            if tries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_err() {
                return Some(Err(ParserError::RecursionLimitExceeded));
            }
        }
        if let Some(lambda) = lambdas::parse(parser) {
            return Some(lambda);
        }
        if let Some(form) = xml::parse(parser).or_else(|| sql_json::parse(parser)) {
            return Some(form);
        }
        let op = match &parser.peek_token_ref().token {
            Token::Minus => UnaryOperator::Minus,
            Token::Plus => UnaryOperator::Plus,
            token => geometric_prefix(token)?,
        };
        parser.advance_token();
        let is_sign = matches!(op, UnaryOperator::Minus | UnaryOperator::Plus);
        let operand = parser.parse_subexpr(if is_sign { SIGN } else { OTHER });
        Some(operand.map(|operand| Expr::UnaryOp { op, expr: Box::new(operand) }))
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        let token = &parser.peek_token_ref().token;
        match token {
            Token::Caret => Some(Ok(POWER)),
            Token::StringConcat | Token::Sharp => Some(Ok(OTHER)),
            _ if is_word(token, "ISNULL") || is_word(token, "NOTNULL") => {
                Some(Ok(self.prec_value(Precedence::Is)))
            }
            _ => None,
        }
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        left: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        if let Some(test) = xml::parse_test(parser, left) {
            return Some(Ok(test));
        }
        let (op, precedence) = match &parser.peek_token_ref().token {
            Token::Caret => (BinaryOperator::PGExp, POWER),
            Token::Sharp => (BinaryOperator::BitwiseXor, OTHER),
            token if is_word(token, "ISNULL") => {
                parser.advance_token();
                return Some(Ok(Expr::IsNull(Box::new(left.clone()))));
            }
            token if is_word(token, "NOTNULL") => {
                parser.advance_token();
                return Some(Ok(Expr::IsNotNull(Box::new(left.clone()))));
            }
            _ => return self.symmetric(parser, left),
        };
        parser.advance_token();
        Some(parser.parse_subexpr(precedence).map(|right| binary(left.clone(), op, right)))
    }

    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        GENERIC.is_delimited_identifier_start(c)
    }

    /// Excludes `#`, so that `a#b` is an operator.
    fn is_identifier_start(&self, c: char) -> bool {
        c != '#' && GENERIC.is_identifier_start(c)
    }

    /// Excludes `#`, so that `a#>'{k}'` is an operator.
    fn is_identifier_part(&self, c: char) -> bool {
        c != '#' && GENERIC.is_identifier_part(c)
    }

    fn supports_table_versioning(&self) -> bool {
        self.versions
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        match precedence {
            Precedence::PgOther | Precedence::Pipe | Precedence::Ampersand | Precedence::Caret => OTHER,
            Precedence::AtTz => POWER + 1,
            other => GENERIC.prec_value(other),
        }
    }

    as_generic! {
        supports_unicode_string_literal
        supports_partition_by_after_order_by
        supports_array_join_syntax
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_left_associative_joins_without_parens
        supports_connect_by
        supports_match_recognize
        supports_pipe_operator
        supports_start_transaction_modifier
        supports_window_function_null_treatment_arg
        supports_dictionary_syntax
        supports_window_clause_named_window_reference
        supports_parenthesized_set_variables
        supports_select_wildcard_except
        support_map_literal_syntax
        allow_extract_custom
        allow_extract_single_quotes
        supports_extract_comma_syntax
        supports_create_view_comment_syntax
        supports_parens_around_table_factor
        supports_values_as_table_factor
        supports_create_index_with_clause
        supports_explain_with_utility_options
        supports_limit_comma
        supports_update_order_by
        supports_from_first_select
        supports_projection_trailing_commas
        supports_asc_desc_in_column_definition
        supports_try_convert
        supports_bitwise_shift_operators
        supports_comment_on
        supports_load_extension
        supports_named_fn_args_with_assignment_operator
        supports_struct_literal
        supports_empty_projections
        supports_nested_comments
        supports_multiline_comment_hints
        supports_user_host_grantee
        supports_string_escape_constant
        supports_array_typedef_with_brackets
        supports_match_against
        supports_set_names
        supports_comma_separated_set_assignments
        supports_filter_during_aggregation
        supports_select_wildcard_exclude
        supports_data_type_signed_suffix
        supports_interval_options
        supports_quote_delimited_string
        supports_select_wildcard_replace
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_optimize_table
        supports_install
        supports_detach
        supports_prewhere
        supports_with_fill
        supports_limit_by
        supports_interpolate
        supports_settings
        supports_select_format
        supports_comment_optimizer_hint
        supports_constraint_keyword_without_name
        supports_key_column_option
        supports_comma_separated_trim
        supports_cte_without_as
        supports_select_item_multi_column_alias
        supports_xml_expressions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_bind_as_in_postgresql() {
        for (written, meant) in [
            ("a ->> 'k' = 'v'", "(a ->> 'k') = 'v'"),
            ("a -> 'k' ->> 'l' IN ('v')", "((a -> 'k') ->> 'l') IN ('v')"),
            ("a ->> 'k' IS NULL AND b", "((a ->> 'k') IS NULL) AND b"),
            ("a -> 1 + 1", "a -> (1 + 1)"),
            ("a @> b AND c", "(a @> b) AND c"),
            ("2 * a ^ b ^ c", "2 * ((a ^ b) ^ c)"),
            ("- a ^ b", "(- a) ^ b"),
            ("a | b & c # d << 1", "(((a | b) & c) # d) << 1"),
            ("a & b = c", "(a & b) = c"),
            ("a#b", "a # b"),
            ("(a)#3", "a # 3"),
            ("3#a", "3 # a"),
            ("'x' || a + b", "'x' || (a + b)"),
            ("a ISNULL AND b NOTNULL", "(a IS NULL) AND (b IS NOT NULL)"),
            ("a + 1 ISNULL", "(a + 1) IS NULL"),
            ("a BETWEEN SYMMETRIC 3 AND 1 AND b", "((a BETWEEN 3 AND 1) OR (a BETWEEN 1 AND 3)) AND b"),
        ] {
            let parse = |sql: &str| {
                Parser::new(&Grammar { tries: None, versions: false })
                    .try_with_sql(sql)
                    .unwrap()
                    .parse_expr()
                    .unwrap()
            };
            let plain = |sql: &str| format!("{:?}", without_parentheses(parse(sql)));
            assert_eq!(plain(written), plain(meant), "{written}");
        }
    }

    fn without_parentheses(mut expression: datafusion::sql::sqlparser::ast::Expr) -> String {
        use std::ops::ControlFlow;

        use datafusion::sql::sqlparser::ast::Expr;
        let _ = crate::ast_walk::visit_expressions_mut(&mut expression, |part| {
            if let Expr::Nested(inner) = part {
                *part = inner.as_ref().clone();
            }
            ControlFlow::<()>::Continue(())
        });
        shape(&expression)
    }

    /// Returns the tree as text without positions.
    fn shape(expression: &datafusion::sql::sqlparser::ast::Expr) -> String {
        use datafusion::sql::sqlparser::ast::Expr;
        match expression {
            Expr::BinaryOp { left, op, right } => format!("({} {op} {})", shape(left), shape(right)),
            Expr::IsNull(inner) => format!("({} IS NULL)", shape(inner)),
            Expr::InList { expr, list, .. } => format!("({} IN {list:?})", shape(expr))
                .replace(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'], ""),
            other => other.to_string(),
        }
    }
}
