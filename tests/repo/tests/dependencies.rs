//! Domain ← ports ← adapters ← functions, and never the other way; and what of others' crates is linked into a function.

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

/// Crates that are linked into a function for Lambda's processor, by name, each with its versions. Those that only run while it
/// is built are not among them.
fn linked(function: &str) -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", function, "--target", "aarch64-unknown-linux-gnu"])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { panic!("cargo tree says {line}") };
        found.entry(name.to_owned()).or_default().insert(version.to_owned());
    }
    assert!(found.len() > 100, "{function}: {} crates prove nothing", found.len());
    found.into_iter().map(|(name, versions)| (name, versions.into_iter().collect())).collect()
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

/// A second implementation would be a megabyte more of each function, and a second place to keep secure.
#[test]
fn one_tls_stack_and_one_http_stack_are_linked() {
    const ONE_EACH: [&str; 9] =
        ["aws-lc-rs", "http", "http-body", "hyper", "hyper-rustls", "hyper-util", "reqwest", "rustls", "tokio-rustls"];
    const NONE: [&str; 28] = [
        // TLS other than rustls.
        "boring",
        "boring-sys",
        "gnutls",
        "mbedtls",
        "native-tls",
        "openssl",
        "openssl-sys",
        "s2n-tls",
        "s2n-tls-sys",
        "schannel",
        "security-framework",
        "tokio-native-tls",
        // Providers of rustls other than aws-lc-rs, and roots other than the system's.
        "aws-lc-fips-sys",
        "ring",
        "rustls-graviola",
        "rustls-rustcrypto",
        "webpki-root-certs",
        "webpki-roots",
        // HTTP other than reqwest over hyper, and its second version, which neither AWS nor Marketo needs.
        "aws-smithy-http-client",
        "h2",
        "attohttpc",
        "awc",
        "curl",
        "h3",
        "isahc",
        "quinn",
        "surf",
        "ureq",
    ];
    for (function, _) in crate::FUNCTIONS {
        let linked = linked(function);
        for name in ONE_EACH {
            assert_eq!(linked.get(name).map_or(0, Vec::len), 1, "{function} links {name} {:?}", linked.get(name));
        }
        for name in NONE {
            assert!(!linked.contains_key(name), "{function} links {name}");
        }
    }
}

/// Each is there because two others ask for different versions; whoever updates takes out what has gone.
#[test]
fn no_crate_is_linked_twice_but_these() {
    const TWICE: [&str; 3] = [
        // lambda_runtime and we ask for the older one, hyper-util and reqwest for the newer one.
        "base64",
        // The checksums of the SDK for S3 (crc-fast) ask for the older ones.
        "crypto-common",
        "digest",
    ];
    let mut found = BTreeSet::new();
    for (function, _) in crate::FUNCTIONS {
        found.extend(linked(function).into_iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name));
    }
    assert_eq!(found, BTreeSet::from(TWICE.map(str::to_owned)));
}

/// The workspace's lints forbid unsafe code, and a crate that does not take them over would escape.
#[test]
fn no_crate_of_ours_may_hold_unsafe_code() {
    assert!(crate::read("Cargo.toml").contains("\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    let packages = packages();
    assert!(packages.len() >= 20, "{}", packages.len());
    for (name, package) in packages {
        let manifest = crate::read(std::path::Path::new(&package.folder).join("Cargo.toml"));
        assert!(manifest.contains("\n[lints]\nworkspace = true\n"), "{name} does not take over the workspace's lints");
    }
}

/// The batch runner catches panics, which takes unwinding. cargo-lambda builds with `panic = "abort"` where the manifest says
/// nothing.
#[test]
fn what_is_deployed_unwinds() {
    let manifest = crate::read("Cargo.toml");
    let (_, release) = manifest.split_once("\n[profile.release]\n").expect("a profile");
    let release = release.split("\n[").next().unwrap_or_default();
    assert!(release.lines().any(|line| line == "panic = \"unwind\""), "{release}");
}
