//! Rows and groups that fail.

use super::{Case, check_cases};

#[test]
fn a_row_that_fails_counts_nowhere() {
    let case = |sql: &str, from: &str, errors: &str| Case {
        sql: format!("SELECT {sql}").replace("$", "t"),
        at_once: format!("SELECT {sql}").replace("$", from),
        errors: Some(format!("SELECT count(*) FROM t WHERE {errors}")),
    };
    let good = "(SELECT * FROM t WHERE i64 <> 0 OR i64 IS NULL)";
    let both = "(SELECT * FROM t WHERE (i64 <> 0 OR i64 IS NULL) AND (i8 <> 0 OR i8 IS NULL))";
    let cases = [
        case("t, count(*), sum(100 / i64) FROM $ GROUP BY t", good, "i64 = 0"),
        case("count(*), sum(100 / i64), count(DISTINCT 7 / i64) FROM $", good, "i64 = 0"),
        case("100 / i64, count(*) FROM $ GROUP BY 100 / i64", good, "i64 = 0"),
        case(
            "t, count(*) FILTER (WHERE 100 / i64 > 9), sum(9 / i8) FROM $ GROUP BY t",
            both,
            "i64 = 0 OR i8 = 0",
        ),
        case("t, sum(100 / i64) FILTER (WHERE i64 > 0), count(*) FROM $ GROUP BY t", good, "i64 = 0"),
        case("t, 100 / i64, count(*) FROM $ GROUP BY ROLLUP (t, 100 / i64)", good, "i64 = 0"),
    ];
    check_cases(&cases, false, 80..84);
    check_cases(&cases, true, 84..86);
}

#[test]
fn a_group_without_a_result_fails_until_it_has_one() {
    let good =
        "(SELECT *, max(big) OVER (PARTITION BY b) AS most FROM t) AS t WHERE most IS NULL OR most < 1000";
    let errors = "SELECT count(*) FROM (SELECT b, max(big) AS most FROM t GROUP BY b) AS t WHERE most > 1000";
    let case = |calls: &str| Case {
        sql: format!("SELECT b, {calls} FROM t GROUP BY b"),
        at_once: format!("SELECT b, {calls} FROM {good} GROUP BY b"),
        errors: Some(errors.into()),
    };
    check_cases(&[case("avg(big)"), case("count(*), avg(big), avg(DISTINCT big), sum(i8)")], false, 90..98);
    let global = Case {
        sql: "SELECT count(*) AS n, avg(big) AS m FROM t".into(),
        at_once: "SELECT count(*) AS n, avg(CASE WHEN big < 1000 THEN big END) AS m FROM t \
                  HAVING max(big) IS NULL OR max(big) < 1000"
            .into(),
        errors: Some("SELECT count(*) FROM (SELECT max(big) AS most FROM t) AS t WHERE most > 1000".into()),
    };
    check_cases(&[global], false, 98..104);
}

#[test]
fn a_group_whose_accumulator_failed_has_no_result() {
    let good =
        "(SELECT *, max(i64) OVER (PARTITION BY b) AS most FROM t) AS t WHERE most IS NULL OR most < 59";
    let case = Case {
        sql: "SELECT b, picky(i64) AS p, count(*) AS n FROM t GROUP BY b".into(),
        at_once: format!("SELECT b, picky(i64) AS p, count(*) AS n FROM {good} GROUP BY b"),
        errors: Some(
            "SELECT count(*) FROM (SELECT b, max(i64) AS most FROM t GROUP BY b) AS t WHERE most = 59".into(),
        ),
    };
    check_cases(&[case], true, 110..118);
}
