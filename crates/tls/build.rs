//! Tells the code which family the linked OpenSSL belongs to.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(boring)");
    println!("cargo::rerun-if-changed=build.rs");
    let linked = |name: &str| std::env::var_os(format!("DEP_OPENSSL_{name}")).is_some();
    if linked("BORINGSSL") || linked("AWSLC") || linked("AWSLC_FIPS") {
        println!("cargo::rustc-cfg=boring");
    }
}
