//! Domain ← ports ← adapters ← functions, and never the other way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::root;

/// A crate of the workspace.
struct Package {
    /// Folder, from the workspace's on.
    folder: String,
    /// Names of what its shipped code is built with: normal and build dependencies.
    shipped: BTreeSet<String>,
    /// Features that it asks of its shipped dependencies, and its own default features.
    features: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let workspace = text(&metadata["workspace_root"]);
    let package = |package: &Value| {
        let manifest = text(&package["manifest_path"]);
        let folder = manifest.strip_prefix(&workspace).expect("inside the workspace");
        let folder = folder.trim_start_matches('/').trim_end_matches("/Cargo.toml").to_owned();
        let shipped: Vec<Value> =
            list(&package["dependencies"]).into_iter().filter(|dependency| dependency["kind"] != "dev").collect();
        let asked = shipped.iter().flat_map(|dependency| list(&dependency["features"]));
        let features = asked.chain(list(&package["features"]["default"])).map(|feature| text(&feature)).collect();
        let shipped = shipped.iter().map(|dependency| text(&dependency["name"])).collect();
        (text(&package["name"]), Package { folder, shipped, features })
    };
    list(&metadata["packages"]).iter().map(package).collect()
}

/// Whether a crate speaks to AWS.
fn is_aws(name: &str) -> bool {
    name.starts_with("aws-") || name.starts_with("lambda_") || name == "aws" || name == "lambda"
}

#[test]
fn domain_depends_on_no_cloud_no_runtime_and_none_of_ours() {
    let packages = packages();
    for name in &packages["domain"].shipped {
        let wrong = is_aws(name) || name == "tokio" || name == "futures" || name == "rand" || name == "jiff";
        assert!(!wrong && !packages.contains_key(name), "domain depends on {name}");
    }
}

#[test]
fn ports_depend_on_none_of_ours_and_on_no_cloud() {
    let packages = packages();
    for name in &packages["ports"].shipped {
        assert!(!is_aws(name) && name != "tokio" && !packages.contains_key(name), "ports depends on {name}");
    }
}

#[test]
fn state_stands_on_domain_and_ports_alone() {
    let packages = packages();
    let ours: BTreeSet<&str> =
        packages["state"].shipped.iter().map(String::as_str).filter(|name| packages.contains_key(*name)).collect();
    assert_eq!(ours, BTreeSet::from(["domain", "ports"]));
}

#[test]
fn adapters_do_not_know_each_other() {
    let packages = packages();
    let adapters = ["aws", "marketo", "adobe"];
    for one in adapters {
        for other in adapters {
            assert!(!packages[one].shipped.contains(other), "{one} depends on {other}");
        }
    }
}

#[test]
fn functions_do_not_know_each_other() {
    let packages = packages();
    for (one, _) in crate::FUNCTIONS {
        for (other, _) in crate::FUNCTIONS {
            assert!(!packages[one].shipped.contains(other), "{one} depends on {other}");
        }
    }
}

#[test]
fn nothing_shipped_depends_on_tests_or_on_the_local_stack() {
    let packages = packages();
    let shipped: Vec<_> = packages.iter().filter(|(_, package)| package.folder.starts_with("functions/")).collect();
    // Five functions and eight libraries: an empty list would prove nothing.
    assert!(shipped.len() >= 13, "{}", shipped.len());
    for (name, package) in shipped {
        for dependency in &package.shipped {
            let Some(ours) = packages.get(dependency) else { continue };
            assert!(ours.folder.starts_with("functions/"), "{name} depends on {dependency} in {}", ours.folder);
        }
    }
}

#[test]
fn only_aws_and_lambda_depend_on_the_sdk() {
    for (name, package) in packages() {
        let may = ["aws", "lambda"].contains(&name.as_str()) || !package.folder.starts_with("functions/");
        let sdk = package.shipped.iter().find(|name| name.starts_with("aws-"));
        assert!(may || sdk.is_none(), "{name} depends on {sdk:?}");
    }
}

#[test]
fn no_shipped_build_can_take_a_guard_out() {
    for (name, package) in packages() {
        if package.folder.starts_with("functions/") || package.folder == "infra/local" {
            assert!(!package.features.contains("planted"), "{name} switches the feature `planted` on");
            let planted = package.features.iter().find(|feature| feature.ends_with("/planted"));
            assert!(planted.is_none(), "{name}: {planted:?}");
        }
    }
}
