//! What a visitor sees. Pure: values in, text out.

/// One entry, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    pub name: String,
    pub text: String,
    /// The replica that took it.
    pub replica: String,
}

/// Everything on the page.
#[derive(Debug, Default)]
pub struct Page {
    /// The replica that made this page.
    pub replica: String,
    /// Newest first.
    pub entries: Vec<Entry>,
    /// What the worker has counted, name and number.
    pub counts: Vec<(String, String)>,
    /// Why there is nothing to show.
    pub problem: Option<String>,
}

impl Page {
    pub fn html(&self) -> String {
        let problem = match &self.problem {
            Some(problem) => format!("<p class=problem>{}</p>\n", escape(problem)),
            None => String::new(),
        };
        let entries: String = self
            .entries
            .iter()
            .map(|entry| {
                format!(
                    "<li><b>{}</b> {} <small>taken by {}</small></li>\n",
                    escape(&entry.name),
                    escape(&entry.text),
                    escape(&entry.replica)
                )
            })
            .collect();
        let counts: Vec<String> =
            self.counts.iter().map(|(name, number)| format!("{} {}", escape(number), escape(name))).collect();
        format!(
            "<!doctype html>
<html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>Guestbook</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 2em auto; padding: 0 1em }}
input {{ font: inherit; padding: .3em }} small {{ color: #666 }} .problem {{ color: #a00 }}
</style>
<h1>Guestbook</h1>
{problem}<form method=\"post\" action=\"/\"><input name=name placeholder=name maxlength=40 required>
<input name=text placeholder=\"a few words\" maxlength=300 size=40 required> <button>Sign</button></form>
<ul>
{entries}</ul>
<p><small>Counted by the worker: {}. This page comes from replica <code>{}</code>.</small></p>
</html>
",
            if counts.is_empty() { "nothing yet".into() } else { counts.join(", ") },
            escape(&self.replica)
        )
    }

    /// A line per entry, for scripts.
    pub fn lines(&self) -> String {
        let clean = |text: &str| text.replace(char::is_control, " ");
        self.entries
            .iter()
            .map(|entry| {
                format!("{}\t{}\t{}\n", clean(&entry.name), clean(&entry.text), clean(&entry.replica))
            })
            .collect()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_cannot_write_html() {
        let entry = Entry { name: "<b>".into(), text: "\"&'".into(), replica: "r".into() };
        let html = Page { entries: vec![entry], ..Page::default() }.html();
        assert!(html.contains("<b>&lt;b&gt;</b> &quot;&amp;&#39;"), "{html}");
    }

    #[test]
    fn one_entry_is_one_line() {
        let entry = Entry { name: "a".into(), text: "b\n\tc".into(), replica: "r".into() };
        assert_eq!(Page { entries: vec![entry], ..Page::default() }.lines(), "a\tb  c\tr\n");
    }
}
