//! Finds DataFusion's own sqllogictest files in the package `datafusion-sqllogictest`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{drive, slt};

const MANIFEST: &str = "\"manifest_path\":\"";

/// Returns the folder `test_files` of the package; the error says why it is unavailable.
pub fn folder() -> drive::Result<PathBuf> {
    // A build needs nothing of the package, so it may be missing: then cargo fetches it.
    let metadata = metadata(&["--offline"]).or_else(|_| metadata(&[]))?;
    let manifests = metadata.split(MANIFEST).skip(1).filter_map(|rest| rest.split('"').next());
    let mut packages = manifests.filter_map(|manifest| Path::new(manifest).parent());
    let is_it = |folder: &&Path| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_prefix("datafusion-sqllogictest")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let package =
        packages.find(is_it).ok_or("the package datafusion-sqllogictest is not among the dependencies")?;
    let folder = package.join("test_files");
    match folder.is_dir() {
        true => Ok(folder),
        false => Err(format!("{} is not there: run cargo fetch", folder.display())),
    }
}

/// Returns cargo's metadata of all packages of the workspace.
fn metadata(more: &[&str]) -> drive::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(more)
        .current_dir(slt::project_root())
        .output()
        .map_err(|error| format!("cargo can't be asked where its packages are: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo can't say where its packages are: {}", why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The groups of files by subject, and the prefixes of their files' names; the first match counts.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "aggregates",
        &[
            "agg",
            "array_agg",
            "group",
            "grouping",
            "count_",
            "distinct",
            "first_last",
            "min_max",
            "optimizer_group",
            "functional_dep",
            "ordered_agg",
        ],
    ),
    (
        "joins",
        &[
            "join",
            "sort_merge_join",
            "nested_loop",
            "lateral",
            "pwmj",
            "null_aware",
            "eliminate_outer",
            "full",
            "push_down_topk",
            "propagate_empty",
            "push_down_filter_outer",
            "same_column",
        ],
    ),
    ("windows", &["window", "lead_lag", "qualify"]),
    (
        "subqueries",
        &[
            "subquery",
            "cte",
            "in_list",
            "union",
            "intersection",
            "select",
            "predicates",
            "alias",
            "values",
            "wildcard",
            "pipe",
            "prepare",
        ],
    ),
    ("orders", &["order", "limit", "topk", "sort_", "filter_without"]),
    ("nested", &["array", "struct", "map", "unnest", "list_view", "cosine", "inner_product"]),
    (
        "types",
        &[
            "decimal",
            "dictionary",
            "binary",
            "float16",
            "negative_zero",
            "cast",
            "type_coercion",
            "arrow_",
            "string_numeric",
            "run_end",
            "metadata",
            "union_function",
        ],
    ),
    (
        "functions",
        &[
            "expr",
            "functions",
            "scalar",
            "math",
            "case",
            "coalesce",
            "nullif",
            "nvl",
            "operator",
            "encoding",
            "strings",
            "regexp",
            "simplify",
            "floor",
            "named_arg",
            "to_timestamp",
            "date_bin",
            "cse",
            "string",
        ],
    ),
    (
        "storage",
        &[
            "parquet",
            "csv",
            "copy",
            "insert",
            "listing",
            "file_",
            "json",
            "avro",
            "create_external",
            "dynamic",
            "projection_pushdown",
            "push_down_filter",
            "clickbench",
            "encrypted",
            "schema_",
            "repartition",
            "range_part",
            "preserve",
            "input_file",
            "statistics",
            "monotonic",
        ],
    ),
];

/// Returns the group of a file by its name, `array/array_has.slt`: its folder, or else a group by subject.
pub fn group(name: &str) -> &str {
    if let Some((folder, _)) = name.split_once('/') {
        return folder;
    }
    let fits = |begins: &&&str| name.starts_with(**begins);
    GROUPS
        .iter()
        .find(|(_, names)| names.iter().any(|begin| fits(&begin)))
        .map_or("other", |(group, _)| group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_a_group() {
        assert_eq!(group("array/array_has.slt"), "array");
        assert_eq!(group("group_by.slt"), "aggregates");
        assert_eq!(group("joins.slt"), "joins");
        assert_eq!(group("explain.slt"), "other");
    }
}
