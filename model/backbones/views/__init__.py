"""Views of networks in the layouts of libraries; none of them is imported here."""
