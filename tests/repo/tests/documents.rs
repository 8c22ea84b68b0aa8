//! The documents agree with the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{FUNCTIONS, read, root};

/// Every document, from the workspace's folder on.
fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(PathBuf::from).into();
    found.extend(
        ["infra/docs/architecture.md", "infra/docs/setup.md", "tests/fixtures/tiny/README.md"].map(PathBuf::from),
    );
    found.extend(FUNCTIONS.map(|(name, _)| Path::new("functions").join(name).join("README.md")));
    let decisions = std::fs::read_dir(root().join("infra/docs/decisions")).expect("decisions");
    found.extend(decisions.map(|entry| Path::new("infra/docs/decisions").join(entry.expect("entry").file_name())));
    found
}

/// The table that begins with this line, header and all.
fn table(text: &str, header: &str) -> String {
    let rows = text.lines().skip_while(|line| *line != header).take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| [row, "\n"]).collect()
}

#[test]
fn each_function_documents_its_environment() {
    for (name, uses) in FUNCTIONS {
        let path = format!("functions/{name}/README.md");
        let expected = uses.markdown();
        let found = table(&read(&path), "| variable | meaning | default |");
        assert_eq!(found, expected, "{path} should hold this table:\n\n{expected}");
    }
}

#[test]
fn the_readme_lists_every_route() {
    let template = crate::template::template();
    let routes = template.functions.iter().flat_map(|function| &function.routes);
    let expected: BTreeSet<String> = routes.map(|route| format!("{} {}", route.method, route.path)).collect();
    let text = table(&read("README.md"), "| route | what it does | who may call it |");
    let rows = text.lines().skip(2).filter_map(|row| row.split('`').nth(1));
    let found: BTreeSet<String> = rows.map(|route| route.split('?').next().unwrap_or(route).to_owned()).collect();
    assert_eq!(found, expected);
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") || target.starts_with('#') {
                continue;
            }
            let file = target.split('#').next().unwrap_or(target);
            let path = root().join(&document).parent().expect("a folder").join(file);
            assert!(path.exists(), "{} links to {target}", document.display());
        }
    }
}

/// A version is made by its number in Cargo.toml and a section of the changelog.
#[test]
fn the_changelog_tells_of_the_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("CHANGELOG.md");
    let versions: Vec<&str> =
        changelog.lines().filter_map(|line| line.strip_prefix("## [")?.split(']').next()).collect();
    assert_eq!(versions.first(), Some(&"Unreleased"));
    assert_eq!(versions.get(1), Some(&version), "{versions:?}");
}

/// Tests are named as `path/file.rs::name`.
#[test]
fn tests_that_are_named_exist() {
    let mut named = 0;
    for document in documents() {
        let text = read(&document);
        for word in text.split('`').skip(1).step_by(2) {
            let Some((file, name)) = word.split_once(".rs::") else { continue };
            named += 1;
            let source = read(format!("{file}.rs"));
            assert!(source.contains(&format!("fn {name}(")), "{} names {word}", document.display());
        }
    }
    assert!(named > 20, "only {named} tests are named");
}
