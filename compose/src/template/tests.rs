//! Templates in, image names out.

use proptest::prelude::*;

use super::*;

/// 2025-08-16 13:07:34 UTC, a Saturday.
const COMMITTED: i64 = 1_755_349_654;
/// 2025-10-31 02:06:51 UTC.
const NOW: i64 = 1_761_876_411;

fn repository(dirty: bool) -> GitFacts {
    GitFacts {
        sha: "84d33bbf0dbb37f96e7df6a5010aed7bab00b089".into(),
        committed_at: COMMITTED,
        dirty,
    }
}

/// Without the zone files of the system.
fn zone(name: &str) -> Option<tz::TimeZone> {
    let rule = match name {
        "Australia/Brisbane" => "AEST-10",
        "America/St_Johns" => "NST3:30NDT,M3.2.0,M11.1.0",
        _ => return None,
    };
    Some(tz::TimeZone::posix(rule).unwrap())
}

fn rendered_with(text: &str, git: Option<&GitFacts>) -> Result<String, TemplateError> {
    let facts = TemplateFacts {
        git,
        now: NOW,
        zone,
    };
    Template::parse(text)?.render("shop", "web", &facts)
}

#[track_caller]
fn rendered(text: &str) -> String {
    rendered_with(text, Some(&repository(false))).unwrap()
}

#[test]
fn forms_that_are_documented() {
    for (text, expected) in [
        ("myapp:v1.0", "myapp:v1.0"),
        ("myapp:{{gitsha 10}}", "myapp:84d33bbf0d"),
        (
            "myapp:{{gitsha}}",
            "myapp:84d33bbf0dbb37f96e7df6a5010aed7bab00b089",
        ),
        (
            "myapp:{{ gitsha -1 }}",
            "myapp:84d33bbf0dbb37f96e7df6a5010aed7bab00b089",
        ),
        (
            "myapp:{{gitsha 99}}",
            "myapp:84d33bbf0dbb37f96e7df6a5010aed7bab00b089",
        ),
        (r#"myapp:{{gitdate "2006-01-02"}}"#, "myapp:2025-08-16"),
        (
            r#"myapp:{{gitdate "20060102-150405"}}"#,
            "myapp:20250816-130734",
        ),
        (
            r#"myapp:{{gitdate "2006-01-02-150405" "Australia/Brisbane"}}"#,
            "myapp:2025-08-16-230734",
        ),
        (
            r#"myapp:{{date "20060102-150405"}}"#,
            "myapp:20251031-020651",
        ),
        (
            r#"myapp:v1.0-{{gitdate "2006-01-02"}}-{{gitsha 7}}"#,
            "myapp:v1.0-2025-08-16-84d33bb",
        ),
        (
            "{{.Project}}/{{.Service}}:{{.Tag}}",
            "shop/web:2025-08-16-130734.84d33bb",
        ),
        (
            "myapp:{{.Git.SHA}}",
            "myapp:84d33bbf0dbb37f96e7df6a5010aed7bab00b089",
        ),
        (
            "a:{{if .Git.IsRepo}}git-{{gitsha 3}}{{else}}no-git{{end}}",
            "a:git-84d",
        ),
    ] {
        assert_eq!(rendered(text), expected, "{text}");
    }
}

#[test]
fn dirty_repositories_and_none() {
    let dirty = repository(true);
    let text = "a:{{gitsha 7}}{{if .Git.IsDirty}}.dirty{{end}}";
    assert_eq!(
        rendered_with(text, Some(&dirty)).unwrap(),
        "a:84d33bb.dirty"
    );
    assert_eq!(
        rendered_with("a:{{.Tag}}", Some(&dirty)).unwrap(),
        "a:2025-08-16-130734.84d33bb.dirty"
    );
    assert_eq!(
        rendered_with("a:{{.Tag}}", None).unwrap(),
        "a:2025-10-31-020651"
    );
    assert_eq!(
        rendered_with("a:x{{gitsha 7}}{{.Git.SHA}}{{gitdate \"06\"}}", None).unwrap(),
        "a:x"
    );
}

#[test]
fn template_prints_texts_in_quotes_of_both_kinds_and_several_conditions() {
    for (text, expected) in [
        (
            "{{if .Git.IsDirty}}a{{else}}b{{end}}{{if .Git.IsRepo}}c{{end}}d",
            "bcd",
        ),
        (
            "{{if .Git.IsRepo}}{{.Tag}}{{end}}",
            "2025-08-16-130734.84d33bb",
        ),
        ("{{.Git.IsRepo}}-{{.Git.IsDirty}}", "true-false"),
        ("{{date `2006`}}{{  gitdate  \"06\"  \"\"  }}", "202525"),
        ("", ""),
    ] {
        assert_eq!(rendered(text), expected, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_a_next_step() {
    let mut all = Vec::new();
    for text in [
        "a:{{.Tag",
        "a:{{.Git.NonExistent.Field}}",
        "a:{{.Servce}}",
        "a:{{gitsha \"abc\"}}",
        "a:{{date 2006-01-02}}",
        "a:{{date}}",
        "a:{{gitdat \"2006\"}}",
        "a:{{divide 1 0}}",
        "a:{{Tag}}",
        "a:{{}}",
        "a:{{if .Git.IsRepo}}x",
        "a:{{if .Git.IsRepo}}x{{else}}y{{else}}z{{end}}",
        "a:{{end}}",
        "a:{{else}}",
        "a:{{range .X}}{{end}}",
        "a:{{$x}}",
        "a:{{.Git.Date}}",
        "a:{{date \"2006\" \"Europe/Olso\"}}",
        "a:{{.Tag 7}}",
        "a:{{\"x}}",
        "a:{{gitsha 1 2}}",
        "a:{{a-b}}",
        "a:{{(gitsha 7)}}",
        "a:{{7 | gitsha}}",
        "a:{{gitsha 7 | printf}}",
        "a:{{\"text\"}}",
        "a:{{- .Tag -}}",
        "a:{{/* why */}}",
        "a:{{else if .Git.IsRepo}}",
        "a:{{if .Git.IsRepo}}{{if .Git.IsDirty}}x{{end}}{{end}}",
        "a:{{if and .Git.IsRepo .Git.IsDirty}}x{{end}}",
        "a:{{if .Service}}x{{end}}",
        "a:{{if}}x{{end}}",
        "a:{{date \"2006-01-02T15:04:05Z07:00\"}}",
        "a:{{date \"15:04:05.999\"}}",
    ] {
        let error = rendered_with(text, Some(&repository(false))).unwrap_err();
        all.push(format!("{text}\n    {error}\n    hint: {}", error.hint));
    }
    insta::assert_snapshot!(all.join("\n"));
}

fn date(form: &str, at: i64, zone_name: Option<&str>) -> String {
    let facts = TemplateFacts {
        git: None,
        now: NOW,
        zone,
    };
    facts
        .date(at, &date::strftime(form).unwrap(), zone_name)
        .unwrap()
}

#[test]
fn dates_in_the_forms_of_go() {
    for (form, expected) in [
        (
            "Mon Jan _2 15:04:05 MST 2006",
            "Sat Aug 16 13:07:34 UTC 2025",
        ),
        (
            "Monday, 02-Jan-06 15:04:05 MST",
            "Saturday, 16-Aug-25 13:07:34 UTC",
        ),
        ("3:04PM", "1:07PM"),
        ("03.04pm", "01.07pm"),
        ("1/2/06 4:5", "8/16/25 7:34"),
        ("002 __2", "228 228"),
        ("2006_2006", "2025_2025"),
        ("Janitor Monk", "Janitor Monk"),
        ("15:04:05.000", "13:07:34.000"),
        ("20060102.0001", "20250816.0008"),
        ("é%", "é%"),
    ] {
        assert_eq!(date(form, COMMITTED, None), expected, "{form}");
    }
    for (zone, expected) in [
        ("UTC", "2025-08-16 13:07 UTC"),
        ("Australia/Brisbane", "2025-08-16 23:07 AEST"),
        ("America/St_Johns", "2025-08-16 10:37 NDT"),
    ] {
        assert_eq!(
            date("2006-01-02 15:04 MST", COMMITTED, Some(zone)),
            expected
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(\\{\\{|\\}\\}|\"|`|[.a-zA-Z0-9 |()$-]|if |else|end|gitsha|date|\\.Git\\.IsRepo|\\.Tag){0,24}") {
        _ = rendered_with(&text, None);
    }

    #[test]
    fn no_form_makes_it_panic(form in "\\PC{0,24}", at in any::<i64>()) {
        let facts = TemplateFacts { git: None, now: NOW, zone };
        if let Ok(form) = date::strftime(&form) {
            _ = facts.date(at, &form, None);
        }
    }
}
