//! The files of the page. They are part of the binary; a browser keeps each until its tag changes.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// A file of the page.
struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const fn script(path: &'static str, text: &'static str) -> Asset {
    Asset { path, kind: "text/javascript; charset=utf-8", text }
}

const ASSETS: [Asset; 21] = [
    Asset { path: "/", kind: "text/html; charset=utf-8", text: include_str!("../assets/index.html") },
    Asset { path: "/style.css", kind: "text/css; charset=utf-8", text: include_str!("../assets/style.css") },
    Asset {
        path: "/licenses.txt",
        kind: "text/plain; charset=utf-8",
        text: include_str!("../assets/LICENSES.txt"),
    },
    Asset { path: "/icon.svg", kind: "image/svg+xml", text: include_str!("../assets/icon.svg") },
    script("/app.js", include_str!("../assets/app.js")),
    script("/batches.js", include_str!("../assets/batches.js")),
    script("/charts.js", include_str!("../assets/charts.js")),
    script("/drawing.js", include_str!("../assets/drawing.js")),
    script("/editor.js", include_str!("../assets/editor.js")),
    script("/elements.js", include_str!("../assets/elements.js")),
    script("/graph.js", include_str!("../assets/graph.js")),
    script("/grid.js", include_str!("../assets/grid.js")),
    script("/layout.js", include_str!("../assets/layout.js")),
    script("/overview.js", include_str!("../assets/overview.js")),
    script("/pages.js", include_str!("../assets/pages.js")),
    script("/plot.js", include_str!("../assets/plot.js")),
    script("/sources.js", include_str!("../assets/sources.js")),
    script("/sql.js", include_str!("../assets/sql.js")),
    script("/state.js", include_str!("../assets/state.js")),
    script("/vendor-dagre.js", include_str!("../assets/vendor-dagre.js")),
    script("/vendor-editor.js", include_str!("../assets/vendor-editor.js")),
];

/// Adds the paths of the files.
pub(crate) fn add_to<S: Clone + Send + Sync + 'static>(mut router: Router<S>) -> Router<S> {
    for asset in &ASSETS {
        let tag = tag_of(asset.text);
        router = router.route(asset.path, get(move |headers: HeaderMap| answer(asset, tag, headers)));
    }
    router
}

async fn answer(asset: &'static Asset, tag: u64, headers: HeaderMap) -> Response {
    let tag = format!("\"{tag:016x}\"");
    let is_known = headers.get_all(IF_NONE_MATCH).iter().any(|known| {
        known.to_str().is_ok_and(|known| known.split(',').any(|known| known.trim_start_matches("W/") == tag))
    });
    let kept = [(ETAG, tag), (CACHE_CONTROL, "no-cache".to_string())];
    if is_known {
        return (StatusCode::NOT_MODIFIED, kept).into_response();
    }
    (kept, [(CONTENT_TYPE, asset.kind)], asset.text).into_response()
}

/// Returns the tag of a file: FNV-1a of its bytes.
fn tag_of(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |tag, byte| (tag ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_together_have_less_than_a_megabyte() {
        let bytes: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();
        assert!(bytes < 1_000_000, "{bytes}");
    }

    #[test]
    fn no_file_names_another_machine_or_writes_html() {
        for asset in ASSETS.iter().filter(|asset| !asset.path.starts_with("/vendor-")) {
            for part in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("]
            {
                assert!(!asset.text.contains(part), "{} has {part}", asset.path);
            }
            // The licences and the namespace of SVG name addresses that nobody loads.
            if asset.kind.starts_with("text/") && asset.path != "/licenses.txt" {
                let text = asset.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains("://"), "{} names another machine", asset.path);
            }
        }
    }

    #[test]
    fn a_tag_changes_with_the_text() {
        assert_eq!(tag_of(""), 0xcbf2_9ce4_8422_2325);
        assert_ne!(tag_of("a"), tag_of("b"));
    }
}
