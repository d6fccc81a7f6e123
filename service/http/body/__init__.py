"""The two forms of a body, multipart and JSON, read into drafts."""
