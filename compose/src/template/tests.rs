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

fn zone(name: &str, _at: i64) -> Option<(i32, String)> {
    match name {
        "Australia/Brisbane" => Some((36_000, "AEST".into())),
        "America/St_Johns" => Some((-9_000, "NDT".into())),
        _ => None,
    }
}

fn rendered_with(text: &str, git: Option<&GitFacts>) -> Result<String, TemplateError> {
    let facts = TemplateFacts {
        git,
        now: NOW,
        zone: &zone,
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
fn conditions_pipelines_and_trimming() {
    for (text, expected) in [
        (
            "{{if .Git.IsDirty}}a{{else if eq .Service \"web\"}}b{{else}}c{{end}}",
            "b",
        ),
        (
            "{{if and .Git.IsRepo (not .Git.IsDirty)}}clean{{end}}",
            "clean",
        ),
        ("{{if or .Git.IsDirty false}}x{{else}}y{{end}}", "y"),
        ("{{if ne .Service \"db\" }}x{{end}}", "x"),
        ("{{7 | gitsha}}", "84d33bb"),
        ("{{\"2006\" | gitdate}}", "2025"),
        ("{{ `raw` }}{{\"a\\\"}}b\"}}", "rawa\"}}b"),
        ("a  {{- /* why */ -}}  b", "ab"),
        ("a {{- .Service -}} b", "awebb"),
        ("{{(gitsha 7)}}", "84d33bb"),
        ("{{true}}{{12}}", "true12"),
        ("{{if false}}{{end}}", ""),
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
        "a:{{(gitsha 7}}",
        "a:{{gitsha 7)}}",
        "a:{{gitsha 1 2}}",
        "a:{{a-b}}",
    ] {
        let error = rendered_with(text, Some(&repository(false))).unwrap_err();
        all.push(format!("{text}\n    {error}\n    hint: {}", error.hint));
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn dates_in_the_forms_of_go() {
    let at = |form: &str, zone: (i32, &str)| {
        layout::format(form, &layout::Moment::new(COMMITTED, zone.0, zone.1.into()))
    };
    let utc = (0, "UTC");
    for (form, expected) in [
        ("2006-01-02T15:04:05Z07:00", "2025-08-16T13:07:34Z"),
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
        ("15:04:05.000,999x", "13:07:34.000x"),
        ("20060102.0001", "20250816.0008"),
        ("-0700 -07:00 -07 Z0700", "+0000 +00:00 +00 Z"),
        ("é", "é"),
    ] {
        assert_eq!(at(form, utc), expected, "{form}");
    }
    assert_eq!(
        at("2006-01-02 15:04 MST -0700", (36_000, "AEST")),
        "2025-08-16 23:07 AEST +1000"
    );
    assert_eq!(
        at("15:04 -07:00 Z07:00", (-9_000, "NDT")),
        "10:37 -02:30 -02:30"
    );
}

#[test]
fn days_of_the_calendar() {
    for (at, expected) in [
        (0, "1970-01-01 001 Thursday"),
        (951_782_400, "2000-02-29 060 Tuesday"),
        (951_868_800, "2000-03-01 061 Wednesday"),
        (1_735_603_200, "2024-12-31 366 Tuesday"),
        (4_107_542_400, "2100-03-01 060 Monday"),
        (-1, "1969-12-31 365 Wednesday"),
    ] {
        let moment = layout::Moment::new(at, 0, "UTC".into());
        assert_eq!(layout::format("2006-01-02 002 Monday", &moment), expected);
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(\\{\\{|\\}\\}|\"|`|[.a-zA-Z0-9 |()$-]|if |else|end|gitsha|date){0,24}") {
        _ = rendered_with(&text, None);
    }

    #[test]
    fn no_form_makes_it_panic(form in "\\PC{0,24}", at in any::<i64>(), offset in -90_000i32..90_000) {
        _ = layout::format(&form, &layout::Moment::new(at, offset, "X".into()));
    }
}
