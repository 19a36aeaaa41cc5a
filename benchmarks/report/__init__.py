"""How it is told: tables, pictures, pages."""
