//! Compares platforms, written `os[/architecture[/variant]]`.

/// Reports whether an image of platform `image` can run where `wanted` is required. A part that
/// either of them leaves out matches anything.
pub(crate) fn fits(wanted: &str, image: &str) -> bool {
    let (wanted, image) = (normal(wanted), normal(image));
    wanted
        .iter()
        .zip(&image)
        .all(|(wanted, image)| wanted.is_empty() || image.is_empty() || wanted == image)
}

/// Returns the three parts, with architectures under the names that images use. A single word is an
/// architecture unless it is a known operating system.
fn normal(platform: &str) -> [String; 3] {
    let lower = platform.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').collect();
    let (os, architecture, variant) = match parts.as_slice() {
        [os @ ("linux" | "windows" | "freebsd")] => (*os, "", ""),
        [architecture] => ("", *architecture, ""),
        [os, architecture] => (*os, *architecture, ""),
        [os, architecture, variant, ..] => (*os, *architecture, *variant),
        [] => ("", "", ""),
    };
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        // The first variant of each architecture is the one that images leave out.
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("amd64", "v1") => ("amd64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("i386" | "i486" | "i586" | "i686", _) => ("386", ""),
        other => other,
    };
    [os, architecture, variant].map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_accepts_parts_left_out() {
        for (wanted, image, fit) in [
            ("", "linux/amd64", true),
            ("linux", "linux/amd64", true),
            ("linux/amd64", "linux/amd64", true),
            ("linux/arm64", "linux/amd64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("linux/arm", "linux/arm/v6", true),
            ("linux/x86_64", "linux/amd64", true),
            ("aarch64", "linux/arm64", true),
            ("windows/amd64", "linux/amd64", false),
            ("linux/amd64", "", true),
        ] {
            assert_eq!(fits(wanted, image), fit, "{wanted} {image}");
        }
    }
}
