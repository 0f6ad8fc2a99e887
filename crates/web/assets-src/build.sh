#!/usr/bin/env bash
# Builds ../assets/vendor-*.js and ../assets/LICENSES.txt from the npm packages of package-lock.json, byte for byte the same
# each time. Needs Node and npm; nothing else of the project does.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here"/package.json "$here"/package-lock.json "$here"/*.js "$work"
cd "$work"
npm ci --silent --no-fund --no-audit
for name in vendor-editor vendor-dagre; do
  node_modules/.bin/esbuild "$name.js" --bundle --minify --format=esm --target=es2022 --charset=utf8 \
    --legal-comments=none --log-level=warning --outfile="$here/../assets/$name.js"
done

# The licence of each package that is in these files: those of npm's tree without the build's own.
{
  echo 'vendor-editor.js and vendor-dagre.js contain these packages.'
  npm ls --omit=dev --all --parseable | tail -n +2 | sed "s|.*/node_modules/||" | LC_ALL=C sort -u | while read -r package; do
    version=$(node -p "require('./node_modules/$package/package.json').version")
    printf '\n---- %s %s\n\n' "$package" "$version"
    cat "node_modules/$package/LICENSE"
  done
} >"$here/../assets/LICENSES.txt"
wc -c "$here"/../assets/vendor-*.js "$here/../assets/LICENSES.txt"
